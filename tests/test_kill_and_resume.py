"A run that is killed three times, resumed each time, ends with the weights of a run that was not."
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from xar_lab.checkpoints import read_tensors
from xar_lab.runs import checkpoints

CONFIG = dict(name='run', steps=60, batch_size=16, log_every=1, save_every=7, sample_every=60, sample_steps=2,
              dropout=.1, precision='float32')


def start(folder):
    code = (f'from xar_lab.training import TrainConfig, train; train(TrainConfig(runs_dir={str(folder)!r}, '
            f'**{CONFIG!r}))')
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def steps_logged(run):
    path = run / 'metrics.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(l)['step'] for l in lines if l.endswith('}')]


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    process = start(whole)
    assert process.wait() == 0, process.stderr.read()

    for kill_at in (11, 28, 45):                       # between checkpoints, which come every 7 steps
        process = start(broken)
        while max(steps_logged(broken / 'run'), default=0) < kill_at:
            assert process.poll() is None, process.stderr.read()
            time.sleep(.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert checkpoints(broken / 'run') and max(steps_logged(broken / 'run')) < CONFIG['steps']
    process = start(broken)
    assert process.wait() == 0, process.stderr.read()

    for name in ('model', 'ema', 'optimizer'):
        a, b = (read_tensors(checkpoints(f / 'run')[-1] / f'{name}.safetensors') for f in (whole, broken))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), f'{name} differs'
    assert steps_logged(broken / 'run') == list(range(1, 61))
    assert not list((broken / 'run' / 'checkpoints').glob('.*'))
