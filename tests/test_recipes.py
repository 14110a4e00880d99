"The recipes `var` and `mar` through everything that xAR goes through; what they reach on the digits is a slow test."
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, papermill

from xar_lab.checkpoints import read_tensors
from xar_lab.config import TrainConfig
from xar_lab.evaluation import evaluate
from xar_lab.runs import checkpoints
from xar_lab.state import load_run
from xar_lab.training import train

QUICK = dict(steps=6, batch_size=16, log_every=1, save_every=2, sample_every=6, sample_steps=2, precision='float32',
             device='cpu', dropout=.1, lr=1e-3)
RECIPES = 'var', 'mar'


def check_same_bits(one, other):
    "Two runs ended with the same weights, average and moments."
    for name in ('model', 'ema', 'optimizer'):
        a, b = (read_tensors(checkpoints(run)[-1] / f'{name}.safetensors') for run in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), f'{name} differs'


@pytest.mark.parametrize('recipe', [pytest.param('var', marks=pytest.mark.slow), 'mar'])
def test_stopped_and_resumed(recipe, tmp_path):
    values = dict(QUICK, recipe=recipe, runs_dir=str(tmp_path))
    whole = train(TrainConfig(name='whole', **values))
    train(TrainConfig(name='broken', **values), lambda news: news['step'] >= 3)
    broken = train(TrainConfig(name='broken', **values))
    check_same_bits(whole, broken)
    model, codec, config = load_run(whole)
    assert (config.recipe, model.config.head) == (recipe, dict(var='logits', mar='token_mlp')[recipe])
    rows = [json.loads(line) for line in (whole / 'metrics.jsonl').read_text().splitlines()]
    assert all(('bits_per_token' in row) == (recipe == 'var') for row in rows)
    report = evaluate(whole, n=20, progress=False)
    assert (report.metrics['nfe'], report.metrics['reads']) == dict(var=(3, 3), mar=(16 * 2 * 2, 16 * 2))[recipe]
    evaluate(whole, n=20, progress=False, batch_size=7, name='in_parts')
    different = sum((a != b).any() for a, b in zip(*(report_images(whole, name) for name in ('default', 'in_parts'))))
    assert different <= 1                                     # a code may tip over by rounding


def report_images(run, name):
    import numpy as np
    return np.load(run / 'eval' / name / 'samples.npz')['images']


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES)
def test_by_papermill_killed_launched_and_drawn_by_two(recipe, tmp_path):
    values = dict(QUICK, recipe=recipe, runs_dir=str(tmp_path), steps=40, save_every=7, sample_every=40)
    done = papermill('train', tmp_path / 'out.ipynb', name='whole', eval_samples=20, live=False, **values)
    assert done.returncode == 0, done.stderr[-3000:]
    code = f'from xar_lab.training import TrainConfig, train; train(TrainConfig(name="killed", **{values!r}))'
    killed, log = tmp_path / 'killed', tmp_path / 'killed' / 'metrics.jsonl'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not log.is_file() or len(log.read_text().splitlines()) < 17:
        assert process.poll() is None
        time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(checkpoints(killed)) and json.loads(log.read_text().splitlines()[-1])['step'] < 40
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    check_same_bits(tmp_path / 'whole', killed)

    plain = dict(values, steps=6, dropout=0.)                             # dropout masks are drawn per process
    script = f'''
import torch
from xar_lab.evaluation import evaluate
from xar_lab.launch import launch
from xar_lab.state import load_run
from xar_lab.training import TrainConfig
if __name__ == '__main__':
    for n in (1, 2): launch(TrainConfig(name=f'by{{n}}', **{plain!r}), num_processes=n)
    for n in (1, 2): evaluate({str(killed)!r}, n=40, name=f'by{{n}}', processes=n, batch_size=20, progress=False)
    print(load_run({str(killed)!r})[0].config.head)
'''
    (tmp_path / 'script.py').write_text(script)
    done = subprocess.run([sys.executable, tmp_path / 'script.py'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == dict(var='logits', mar='token_mlp')[recipe]
    a, b = (read_tensors(checkpoints(tmp_path / f'by{n}')[-1] / 'model.safetensors') for n in (1, 2))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4                        # all but rounding
    assert (report_images(killed, 'by1') == report_images(killed, 'by2')).all()


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES)
def test_what_it_reaches_on_the_digits(recipe, tmp_path):
    "Within three minutes of training: class accuracy (the frozen CNN) of 95 %, Fréchet distance of at most 4 floors."
    done = papermill('train', tmp_path / 'out.ipynb', recipe=recipe, runs_dir=tmp_path, name='run', live=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    seconds = sum(25 / row['steps_per_s'] for row in lines)
    metrics = json.loads((tmp_path / 'run' / 'eval' / 'default' / 'report.json').read_text())['metrics']
    print(recipe, f'{seconds:.0f} s', {k: metrics[k] for k in ('class_accuracy', 'fd_over_floor', 'nfe', 'reads')})
    assert metrics['class_accuracy'] >= .95 and metrics['fd_over_floor'] <= 4 and seconds < 180
