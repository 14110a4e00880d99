"Away from what a run draws itself, by the run notebook."
import json

import pytest
import torch
from conftest import papermill, printed, refused

from xar_lab.checkpoints import load_model, read_tensors
from xar_lab.evaluation import evaluate
from xar_lab.runs import checkpoints
from xar_lab.state import load_run

QUICK = dict(images=40, steps=3, eval_samples=20, weights=[.5, 8.], lr=.01)


@pytest.mark.slow
def test_the_weights_are_those_of_the_search(little_run, tmp_path):
    told = dict(run=little_run, name='own', runs_dir=tmp_path, **QUICK)
    for output in ('out', 'again'):                                        # the second finds everything there
        done = papermill('neon', tmp_path / f'{output}.ipynb', **told)
        assert done.returncode == 0, done.stderr[-2000:]
    assert '40 of 40 samples are already there' in ''.join(printed(tmp_path / 'again.ipynb'))
    tried = {path.name: json.loads((path / 'report.json').read_text())['metrics']['fd_over_floor']
             for path in (tmp_path / 'own' / 'eval' / 'search_seed=100_n=20').iterdir()}
    assert sorted(tried) == ['w=0.5_guidance=1', 'w=0_guidance=1', 'w=8_guidance=1'] and len({*tried.values()}) == 3
    w = float(min(tried, key=tried.get).split('_')[0][2:])
    theirs, own = (read_tensors(checkpoints(path)[-1] / 'ema.safetensors') for path in (little_run, tmp_path / 'own'))
    made = load_model(tmp_path / 'own' / 'neon.safetensors').state_dict()
    for name, value in made.items():
        torch.testing.assert_close(value, theirs[name] + w * (theirs[name] - own[name]))


def test_bad_input_is_one_line(little_run, tmp_path):
    told = dict(run=str(little_run), runs_dir=str(tmp_path), **QUICK)
    for values, says in (
            (dict(weights=[]), 'weights must be a list'), (dict(weights=[-1]), 'weights'), (dict(lr=0), 'lr'),
            (dict(guidances=[]), 'guidances must be a list'), (dict(seed=100), 'no fair judge'),
            (dict(images=33), 'multiple of the 10'), (dict(imges=3), 'parameter imges'),
            (dict(name='little', runs_dir=str(little_run.parent)), 'is the run itself')):
        said = refused('neon', **told | values)
        assert says in said and '\n' not in said, (values, said)


def test_a_model_is_judged_by_a_data_set_as_a_dict(little_run, tmp_path):
    model, codec, _ = load_run(little_run)
    told = dict(n=20, sampler='euler', steps=1, extractor='pixels')
    report = evaluate(model, dataset=dict(name='digits'), codec=codec, folder=tmp_path / 'x', **told)
    assert report.numbers['n'] == 20
