"nbs/train.ipynb as papermill runs it."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
PAPERMILL = Path(sys.executable).parent / 'papermill'


def papermill(output, *parameters):
    command = [PAPERMILL, ROOT / 'nbs' / 'train.ipynb', output, '--no-progress-bar']
    for name, value in parameters: command += ['-p', name, str(value)]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_a_short_run_leaves_everything(tmp_path):
    done = papermill(tmp_path / 'out.ipynb', ('runs_dir', tmp_path), ('name', 'short'), ('steps', 20),
                     ('layout', 'antidiagonal'),
                     ('context', 'clean'), ('sample_steps', 3), ('eval_samples', 20), ('log_every', 5))
    assert done.returncode == 0, done.stderr
    run = tmp_path / 'short'
    assert json.loads((run / 'config.json').read_text())['config']['layout'] == 'antidiagonal'
    assert len((run / 'metrics.jsonl').read_text().splitlines()) == 4
    assert list((run / 'samples').glob('*.png')) and list(run.glob('events.out.tfevents*'))
    samples = np.load(run / 'eval' / 'default' / 'samples.npz')
    assert samples['images'].shape == (20, 8, 8, 1) and sorted(np.bincount(samples['labels'])) == [2] * 10
    assert {'report.json', 'grid.png', 'trajectory.gif'} <= {p.name for p in (run / 'eval' / 'default').iterdir()}
    outputs = json.dumps([c.get('outputs') for c in json.loads((tmp_path / 'out.ipynb').read_text())['cells']])
    assert outputs.count('image/png') >= 3
    for what in ('class_accuracy', 'real held-out images', 'samples.npz'): assert what in outputs


def test_an_unknown_parameter_ends_the_run_at_once(tmp_path):
    done = papermill(tmp_path / 'out.ipynb', ('runs_dir', tmp_path), ('learning_rate', 1))
    assert done.returncode != 0 and 'unknown parameter learning_rate; known: model, ' in done.stderr
    assert not list(tmp_path.iterdir())                                   # said before papermill begins


def test_an_impossible_parameter_ends_the_run_at_once(tmp_path):
    done = papermill(tmp_path / 'out.ipynb', ('runs_dir', tmp_path), ('model', 'xar_xl'))
    assert done.returncode != 0 and "unknown preset 'xar_xl'; known: xar_nano" in done.stderr
