"""Sweeps as they are used: by papermill, killed at random moments, two side by side by submitit."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pandas as pd
import pytest
from conftest import ROOT, papermill, refused

from xar_lab.sweep import results
from xar_lab.sweep_plan import Sweep

QUICK = dict(steps=12, batch_size=8, log_every=4, save_every=3, sampler='euler', sample_steps=1, layout='image')
ELSEWHERE = ['train_seconds', 'sampling_seconds', 'images_per_s', 'folder']      # what no result depends on


def started(folder, name, grid, base=None, **asked):
    "A sweep in a process of its own."
    values = dict(name=name, runs_dir=str(folder), judge=dict(n=50, extractor='pixels'), at_once=2) | asked
    text = f'from xar_lab.sweep import sweep; sweep({grid!r}, {QUICK | (base or {})!r}, **{values!r})'
    return subprocess.Popen([sys.executable, '-c', text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process):
    out = process.communicate(timeout=600)[0]
    assert process.returncode == 0, out
    return out


def numbers(folder):
    "What must not depend on when a sweep was killed."
    table = results(folder)
    return table.drop(columns=[c for c in ELSEWHERE if c in table])


def kill_and_go_on(folder, grid, kills, seed):
    "A sweep killed so often at random moments, with its jobs or without them, and then finished."
    chance, done = random.Random(seed), 0
    while done < kills:
        process = started(folder, 'killed', grid)
        time.sleep(chance.uniform(8, 25))
        if process.poll() is not None:
            break
        if chance.random() < .5:          # the jobs are not killed: they see that nobody holds them any more
            os.kill(process.pid, signal.SIGKILL)
        else:
            jobs = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
            for pid in [process.pid, *map(int, jobs)]:
                os.kill(pid, signal.SIGKILL)
        process.wait()
        done += 1
    finished(started(folder, 'killed', grid))
    return done


@pytest.mark.slow
def test_a_sweep_of_12_cells_killed_three_times_equals_an_uninterrupted_one(tmp_path):
    grid = dict(context=['random', 'clean'], order=['raster', 'reverse'], seed=[0, 1, 2])
    finished(started(tmp_path, 'whole', grid))
    assert kill_and_go_on(tmp_path, grid, 3, seed=0) == 3
    whole, killed = numbers(tmp_path / 'whole'), numbers(tmp_path / 'killed')
    assert len(whole) == 12 and set(whole.state) == {'done'}
    pd.testing.assert_frame_equal(whole, killed)


@pytest.mark.slow
def test_two_sweeps_by_submitit_and_a_cell_that_fails(tmp_path):
    more = dict(launcher='submitit', launcher_options=dict(cluster='local'), at_once=1)
    both = [started(tmp_path, 'a', dict(lr=[1e-3, 1e3], seed=[0]), dict(bad_steps=1, weight_decay=0.), **more),
            started(tmp_path, 'b', dict(seed=[5]), **more)]
    said = [finished(process) for process in both]
    first, second = results(tmp_path / 'a'), results(tmp_path / 'b')
    assert list(first.state) == ['done', 'failed'] and list(second.state) == ['done']
    assert 'failed: lr=1000_seed=0: ' in said[0] and 'NaN or infinite' in first.error[1]
    assert first.fd_pixels.notna().tolist() == [True, False]


@pytest.mark.parametrize('given, said', [
    (dict(grid=dict(layuot=['cell'])), 'ValueError: grid: unknown parameter layuot; known: '),
    (dict(grid=dict(seed=[*range(1_000)]), judge=False), '1,000 runs, 0 evaluations: about '),
])
def test_bad_grids_end_in_one_line(given, said, tmp_path):
    last = refused('sweep', runs_dir=str(tmp_path / 'runs'), **given)
    assert last.startswith('ValueError: ') and said in last and '\n' not in last
    assert not (tmp_path / 'runs').exists()


@pytest.mark.slow
def test_by_papermill(tmp_path):
    done = papermill('sweep', tmp_path / 'out.ipynb', runs_dir=tmp_path, name='mine', base=QUICK,
                     grid=dict(context=['random'], seed=[0]), judge=dict(n=50, extractor='pixels'))
    assert done.returncode == 0, done.stderr[-2000:]
    table = results(tmp_path / 'mine')
    assert set(table.state) == {'done'} and len(table) == 1
    read = pd.read_csv(tmp_path / 'mine' / 'table.csv')
    assert list(read.fd_pixels) == list(table.fd_pixels)


def test_the_notebook_has_every_field_with_its_default():
    notebook = json.loads((ROOT / 'nbs' / 'sweep.ipynb').read_text())
    [cell] = [c for c in notebook['cells'] if 'parameters' in c['metadata'].get('tags', ())]
    exec(''.join(cell['source']), values := {})
    asked = Sweep({})
    for field in fields(Sweep):
        if field.name not in ('grid', 'base'):
            assert values[field.name] == getattr(asked, field.name), field.name
