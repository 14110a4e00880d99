"Two processes share every batch: the run is that of one process."
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

BIN = Path(sys.executable).parent
CONFIG = dict(steps=20, batch_size=32, log_every=1, sample_steps=2, sample_every=20, save_every=20, precision='float32', lr=1e-3)


def free_port():
    with socket.socket() as s:
        s.bind(('', 0))
        return str(s.getsockname()[1])


def test_two_processes_train_one_run(tmp_path):
    (tmp_path / 'job.py').write_text(f"import sys\nfrom xar_lab.training import TrainConfig, train\ntrain(TrainConfig(runs_dir={str(tmp_path)!r}, name=sys.argv[1], micro_batch=8, **{CONFIG!r}))\n")
    def losses(name, *launch):
        done = subprocess.run([*launch, tmp_path / 'job.py', name], cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.tensor([json.loads(line)['loss'] for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()])
    one = losses('one', sys.executable)
    two = losses('two', BIN / 'torchrun', '--nproc_per_node', '2', '--master_port', free_port())
    plans = [json.loads((tmp_path / name / 'plan.json').read_text()) for name in ('one', 'two')]
    assert [(p['processes'], p['micro_batch'], p['rounds']) for p in plans] == [(1, 8, 4), (2, 8, 2)]
    assert len(one) == len(two) == 20 and (one - two).abs().max() < 1e-3 * one.max()
