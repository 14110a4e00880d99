"Notebooks that compare, on the smallest model: every table is made; how fast or how good it was is not judged."
import json

import pytest
from conftest import papermill

@pytest.mark.slow
def test_benchmark(tmp_path):
    done = papermill('studies/benchmark', tmp_path / 'out.ipynb', model='xar_nano', grid=4, rounds=1, steps=2,
                     compile=False, models=['xar_nano'], out=tmp_path / 'numbers.json')
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / 'numbers.json').read_text())
    for part in ('training', 'sampling'):
        assert [row['what'] for row in found[part]] == ['plain', 'xar_lab'] and all(0 < row['share'] < 2
            and row['faster'] > 0 for row in found[part])
    assert list(found['growth_entities']['seconds']) == ['1', '4',
                                                         '16'] and list(found['growth_tokens']['seconds']) == ['16',
                                                             '64'] and len(found['growth_batch']) == 4
    assert all(sum(spent.values()) > 0 for spent in found['profile'].values()) and found['starting']['first image'] > 0
    bad = papermill('studies/benchmark', tmp_path / 'out.ipynb', modle='xar_nano')
    assert bad.returncode and 'modle' in bad.stderr


@pytest.mark.slow
def test_in_painting(tmp_path):
    done = papermill('studies/in_painting', tmp_path / 'out.ipynb', steps=2, seeds=2, count=20, sample_steps=1,
                     runs_dir=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '| bottom | no |' in (tmp_path / 'out.ipynb').read_text()


@pytest.mark.slow
def test_optimizers(tmp_path):
    done = papermill('studies/optimizers', tmp_path / 'out.ipynb', seeds=[1, 2], lrs=[.002, .004], steps=6, n=20,
                     runs_dir=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / 'optimizers.json').read_text())
    assert list(found['judged'])[:2] == ['adamw', 'muon'] and len(found['judged']) == 3
    assert all(len(seeds) == 2 and seeds[0]['fd'] > 0 for seeds in found['judged'].values())
    assert '± ' in (tmp_path / 'out.ipynb').read_text()


@pytest.mark.slow
def test_speedrun(tmp_path):
    today = dict(model='xar_nano', patch=2, steps=8, lr=.003, sampler='sde2', sample_steps=1, guidance=1.5,
                 guidance_schedule='constant')
    asked = dict(dataset='digits', today=today, arms={'scale': {'layout': 'scale'}}, share=.5, guidance=[1., 2.],
                 dev_count=100, best={'optimizer': 'muon'}, seeds=[0, 1], peer_seeds=[0, 1], peer_channels=[16, 24],
                 peer_lrs=[.001, .002], peer_guidance=[1., 2.], peer_steps=2, count=100, runs_dir=tmp_path / 'runs',
                 parts=['arms', 'final', 'peer'])
    done = papermill('studies/speedrun', tmp_path / 'out.ipynb', **asked)
    assert done.returncode == 0, done.stderr[-3000:]
    peer = json.loads((tmp_path / 'runs' / 'peer.json').read_text())
    assert [*peer['tried']] == ['0.001', '0.002'] and [*peer['rows']] == ['0', '1'] and peer['steps'] > 0
    assert all(row['seam_rows'] > 0 and row['fd_over_floor'] > 0 for row in peer['rows'].values())
    table = (tmp_path / 'out.ipynb').read_text()
    assert 'seam, columns' in table and 'scale, guidance 2' in table
    bad = papermill('studies/speedrun', tmp_path / 'bad.ipynb', **asked | dict(best={'optimiser': 'muon'}))
    assert bad.returncode and "arm 'best'" in bad.stderr
