"""Kill a small run at random moments, while it writes checkpoints, too, and resume it every time.

In the end it must equal a run that was not killed, to the last bit.

    python tests/kill_often.py [kills, default 30] [seed, default 0]
"""
import collections
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from xar_lab.checkpoints import read_tensors
from xar_lab.runs import checkpoints, good_checkpoint, step_of

CONFIG = dict(name='run', steps=150, batch_size=8, log_every=1, save_every=2, sample_every=150, sample_steps=1,
              dropout=.1, precision='float32')


def start(folder):
    code = ('import sys; from xar_lab.training import TrainConfig, train; print("ready", flush=True); '
            f'train(TrainConfig(runs_dir={str(folder)!r}, **{CONFIG!r}))')
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main(kills: int = 30, seed: int = 0):
    moments, counts = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as here:
        whole, broken = Path(here, 'whole'), Path(here, 'broken')
        assert start(whole).wait() == 0
        weights = lambda folder, name: read_tensors(checkpoints(folder / 'run')[-1] / f'{name}.safetensors')
        wanted, rounds = {name: weights(whole, name) for name in ('model', 'ema', 'optimizer')}, 0
        while counts['kills'] < kills:
            rounds += 1
            run = broken / str(rounds)
            while True:
                process = start(run)
                process.stdout.readline()                                   # the libraries are loaded
                try:
                    process.wait(moments.uniform(.1, 6.))
                    break
                except subprocess.TimeoutExpired: process.send_signal(signal.SIGKILL)
                process.wait()
                counts['kills'] += 1
                writing = list((run / 'run' / 'checkpoints').glob('.step_*'))
                counts['in the middle of writing a checkpoint'] += bool(writing)
                counts['before the first checkpoint'] += not checkpoints(run / 'run')
                if (good := good_checkpoint(run / 'run')) != (checkpoints(run / 'run') or [None])[-1]:
                    counts['newest checkpoint damaged'] += 1
                print(f"kill {counts['kills']}: at step "
                      f"{step_of(good) if good else 0}{', a checkpoint half-written' if writing else ''}", flush=True)
            assert process.returncode == 0, process.stdout.read()
            same = all(wanted[name].keys() == (found := weights(run, name)).keys()
                       and all(torch.equal(wanted[name][k], found[k]) for k in found) for name in wanted)
            counts['runs that ended with the same bits' if same else 'RUNS THAT DIFFER'] += 1
    print(dict(counts))
    sys.exit('RUNS THAT DIFFER' in counts)


if __name__ == '__main__': main(*map(int, sys.argv[1:]))
