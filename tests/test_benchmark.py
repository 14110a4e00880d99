"The benchmark notebook, on the smallest model: every table is made; how fast it was is not judged."
import json

from conftest import papermill

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
