"Several processes, two machines, and what may befall a run of days: what the user sees, and that nothing is lost."
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import BIN, fill, papermill, printed

from xar_lab.checkpoints import read_tensors
from xar_lab.launch import free_port
from xar_lab.runs import checkpoints, list_runs, read_lines, read_meta
from xar_lab.training import TrainConfig, load_run, train

CONFIG = dict(batch_size=32, log_every=1, sample_steps=1, sample_every=1000, precision='float32', lr=1e-3)


def job(folder, name, **values):
    "What runs a config file, and the file."
    path = folder / f'{name}.json'
    path.write_text(json.dumps({**CONFIG, 'name': name, 'runs_dir': str(folder), **values}))
    return [sys.executable, '-m', 'xar_lab.training', path]


def torchrun(processes, *more):
    return [BIN / 'torchrun', '--nproc_per_node', str(processes), *(more or ('--master_port', str(free_port()))), '-m',
            'xar_lab.training']


def run(command):
    return subprocess.run(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True)


def weights(folder, name='model'): return read_tensors(checkpoints(folder)[-1] / f'{name}.safetensors')


def same(a, b): return all(a[k].equal(b[k]) for k in a) and a.keys() == b.keys()


def wait_for(condition, process, what):
    for _ in range(6000):
        if condition(): return
        assert process.poll() is None, f'ended before {what}: {process.stdout and process.stdout.read()}'
        time.sleep(.01)
    raise AssertionError(what)


def begin(command):
    return subprocess.Popen(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.mark.slow
def test_papermill_on_two_processes(tmp_path):
    """Weights equal across processes is what each checkpoint of the run insists on;
    a single process gives the same losses."""
    values = dict(steps=20, batch_size=32, log_every=1, sample_steps=1, save_every=20, sample_every=20,
                  precision='float32', lr=1e-3, eval_samples=20, runs_dir=tmp_path)
    runs = {}
    for n in (1, 2):
        done = papermill('train', tmp_path / f'{n}.ipynb', name=f'on{n}', num_processes=n, **values)
        assert done.returncode == 0, done.stderr[-3000:]
        runs[n] = read_lines(tmp_path / f'on{n}' / 'metrics.jsonl')
    losses = [torch.tensor([row['loss'] for row in runs[n]]) for n in (1, 2)]
    assert len(losses[0]) == len(losses[1]) == 20 and (losses[0] - losses[1]).abs().max() < 1e-3 * losses[0].max()
    print({f'{n} processes': f"{sorted(row['images_per_s'] for row in runs[n])[10]:.0f} images/s" for n in runs})
    # what the processes say is seen in the notebook
    assert '2 devices × 16 at once' in ''.join(printed(tmp_path / '2.ipynb'))


@pytest.mark.slow
def test_two_processes_in_pieces_killed_and_resumed(tmp_path):
    values = dict(steps=18, save_every=6, micro_batch=4, dropout=.1)
    assert run([*torchrun(2), *job(tmp_path, 'whole', **values)[-1:]]).returncode == 0
    assert json.loads((tmp_path / 'whole' / 'cost.json').read_text())['accumulation_steps'] == 4
    process = begin([*torchrun(2), *job(tmp_path, 'broken', **values)[-1:]])
    wait_for(lambda: len(read_lines(tmp_path / 'broken' / 'metrics.jsonl')) >= 8, process, 'step 8')
    for member in [*psutil.Process(process.pid).children(recursive=True), process]: member.kill()
    assert read_meta(checkpoints(tmp_path / 'broken')[-1])['step'] < 18
    assert run([*torchrun(2), *job(tmp_path, 'broken', **values)[-1:]]).returncode == 0
    for name in ('model', 'ema', 'optimizer'):
        assert same(weights(tmp_path / 'whole', name), weights(tmp_path / 'broken', name)), name


@pytest.mark.slow
def test_a_sharded_run_is_the_same_run(tmp_path):
    "FSDP beside copies of the model: gradients, losses, checkpoints; resumed, and read by one process."
    values = dict(steps=4, save_every=1, keep=4, micro_batch=8, dropout=.1, sample_every=4)
    for name, fsdp in (('copies', False), ('sharded', True)):
        assert run([*torchrun(2), *job(tmp_path, name, fsdp=fsdp, **values)[-1:]]).returncode == 0
    copies, sharded = tmp_path / 'copies', tmp_path / 'sharded'
    for key in ('loss', 'gradient_norm'):
        a, b = (torch.tensor([row[key] for row in read_lines(folder / 'metrics.jsonl')])
                for folder in (copies, sharded))
        assert len(a) == 4 and (a / b - 1).abs().max() < 1e-5, key
    first = [{k: v for k, v in read_tensors(checkpoints(folder)[0] / 'optimizer.safetensors').items()
              if k.endswith('exp_avg')} for folder in (copies, sharded)]
    assert sum((first[0][k] - first[1][k]).square().sum() for k in first[0]).sqrt() < 1e-5 * sum(v.square().sum()
        for v in first[0].values()).sqrt()
    assert (sharded / 'samples' / 'step_00000004.png').is_file()
    assert json.loads((sharded / 'cost.json').read_text())['memory_bytes'] < .9 * json.loads((copies
        / 'cost.json').read_text())['memory_bytes']

    ends = {name: weights(sharded, name) for name in ('model', 'ema', 'optimizer')}
    for path in checkpoints(sharded)[2:]: shutil.rmtree(path)
    assert run([*torchrun(2), *job(tmp_path, 'sharded', fsdp=True, **values)[-1:]]).returncode == 0
    for name, end in ends.items(): assert same(end, weights(sharded, name)), name          # to the last bit
    assert load_run(sharded)[0].pred.weight.equal(ends['ema']['pred.weight'])          # by one process, whole


@pytest.mark.slow
@pytest.mark.parametrize('step', (None, .001), ids=('exact', 'by differences'))
def test_flow_maps_on_two_processes(tmp_path, step):
    "What is asked without gradient beside the answer: alone, in copies, and split."
    values = dict(steps=3, batch_size=16, save_every=3, flow='mean', sampler='map', time_steps=0, guidance=2.,
                  flow_options=dict(guidance=4., step=step), compile=False)
    commands = dict(alone=[sys.executable, '-m', 'xar_lab.training'], copies=torchrun(2), sharded=torchrun(2))
    for name, command in commands.items():
        done = run([*command, *job(tmp_path, name, fsdp=name == 'sharded', **values)[-1:]])
        assert done.returncode == 0, done.stderr[-2000:]
    losses = {name: torch.tensor([row['loss'] for row in read_lines(tmp_path / name / 'metrics.jsonl')])
              for name in commands}
    assert len(losses['alone']) == 3
    for name in ('copies', 'sharded'): assert (losses[name] / losses['alone'] - 1).abs().max() < 1e-4, name


@pytest.mark.slow
def test_half_of_the_weights_on_two_processes(tmp_path):
    "What a pattern leaves alone does not move, in copies and split; resumed, a split run is the same."
    values = dict(steps=4, save_every=2, keep=4, trainable='decoder|pred|class_emb', log_every=1)
    for name, fsdp in (('copies', False), ('sharded', True)):
        assert run([*torchrun(2), *job(tmp_path, name, fsdp=fsdp, **values)[-1:]]).returncode == 0
    copies, sharded = tmp_path / 'copies', tmp_path / 'sharded'
    a, b = (torch.tensor([row['loss'] for row in read_lines(folder / 'metrics.jsonl')]) for folder in (copies, sharded))
    assert len(a) == 4 and (a / b - 1).abs().max() < 1e-5
    ends = {name: weights(sharded, name) for name in ('model', 'ema', 'optimizer')}
    stays = [n for n in ends['ema'] if not any(part in n for part in ('decoder', 'pred', 'class_emb'))]
    assert stays and all(ends['ema'][n].equal(weights(copies, 'ema')[n]) for n in stays)
    assert ends['model'].keys() == ends['ema'].keys() - {*stays} == weights(copies).keys()
    shutil.rmtree(checkpoints(sharded)[-1])
    assert run([*torchrun(2), *job(tmp_path, 'sharded', fsdp=True, **values)[-1:]]).returncode == 0
    for name, end in ends.items(): assert same(end, weights(sharded, name)), name          # to the last bit
    assert load_run(sharded, ema=False)[0].z_proj.weight.equal(ends['ema']['z_proj.weight'])


@pytest.mark.slow
def test_two_machines(tmp_path):
    "Two groups of processes that know each other by address only."
    code = ("from xar_lab.launch import launch; from xar_lab.training import TrainConfig; import sys; "
            f"launch(TrainConfig(name='machines', runs_dir={str(tmp_path)!r}, steps=10, save_every=10, **{CONFIG!r}), "
            f"num_processes=2, num_machines=2, machine_rank=int(sys.argv[1]), main_process_port={free_port()})")
    both = [begin([sys.executable, '-c', code, str(rank)]) for rank in (0, 1)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert run(job(tmp_path, 'one', steps=10, save_every=10)).returncode == 0
    losses = [torch.tensor([row['loss'] for row in read_lines(tmp_path / name / 'metrics.jsonl')])
              for name in ('machines', 'one')]
    assert len(losses[0]) == 10 and (losses[0] - losses[1]).abs().max() < 1e-3 * losses[1].max()


@pytest.mark.slow
def test_a_scheduler_ends_the_job_and_a_second_one_is_kept_out(tmp_path):
    process = begin(job(tmp_path, 'long', steps=3000, save_every=3000))
    wait_for(lambda: read_lines(tmp_path / 'long' / 'metrics.jsonl'), process, 'the first step')
    assert list_runs(tmp_path)[0]['state'] == 'running'
    second = run(job(tmp_path, 'long', steps=3000, save_every=3000))
    assert (second.returncode == 1
            and 'is being trained by another process: wait for it, or choose another name' in second.stderr)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and 'with a checkpoint: train again to go on' in said
    [row] = list_runs(tmp_path)
    assert row['state'] == 'stopped' and row['step'] == len(read_lines(tmp_path / 'long' / 'metrics.jsonl'))


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, capsys):
    config = TrainConfig(**CONFIG, name='run', runs_dir=str(tmp_path), steps=30, save_every=10)
    train(config)
    whole = weights(tmp_path / 'run')
    path = checkpoints(tmp_path / 'run')[-1] / 'optimizer.safetensors'
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    train(config)
    assert ('step_00000030 is damaged (optimizer.safetensors has another hash than when it was written): set aside'
            in capsys.readouterr().out)
    assert same(whole, weights(tmp_path / 'run')) and [row['step']
                                                       for row in read_lines(tmp_path / 'run'
                                                           / 'metrics.jsonl')] == list(range(1, 31))


@pytest.mark.slow
def test_a_killed_loader_is_said(tmp_path):
    process = begin(job(tmp_path, 'run', steps=3000, save_every=5, workers=1))
    wait_for(lambda: len(checkpoints(tmp_path / 'run')) > 1, process, 'the second checkpoint')
    [loader] = [child for child in psutil.Process(process.pid).children()
                if 'resource_tracker' not in ' '.join(child.cmdline())][:1]
    loader.kill()
    said, _ = process.communicate(timeout=120)
    assert (process.returncode == 1 and 'a process that loads images ended (DataLoader worker' in said
            and 'Train again to go on from the last checkpoint' in said)
    assert checkpoints(tmp_path / 'run')


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', disk],
                                      capture_output=True).returncode:
        pytest.skip('a small file system can be mounted by root only')
    try:
        config = dict(steps=60, save_every=20, sample_every=20, keep=1)
        process = begin(job(disk, 'run', **config))
        wait_for(lambda: checkpoints(disk / 'run'), process, 'the first checkpoint')
        fill(disk / 'ballast')                  # everything that a run writes fails from here on
        said, _ = process.communicate(timeout=120)
        assert ('no checkpoint at step 40: the disk is full' in said
                and 'step_00000020 is kept, the next try is at step 60' in said)
        assert 'the grid of step 40 is not kept: the disk is full' in said
        assert re.search(r'numbers of step \d+ are not kept', said)
        assert process.returncode == 1 and 'no checkpoint at step 60' in said and 'step_00000020 is kept' in said
        assert [c.name for c in checkpoints(disk / 'run')] == ['step_00000020'] and not list((disk / 'run'
            / 'checkpoints').glob('.*'))
        (disk / 'ballast').unlink()
        assert run(job(disk, 'run', **config)).returncode == 0
        assert [c.name for c in checkpoints(disk / 'run')] == ['step_00000060']
        assert [row['step'] for row in read_lines(disk / 'run' / 'metrics.jsonl')] == list(range(1, 61))
    finally: subprocess.run(['umount', disk])


class Evil:
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return (Path.touch, (self.marker,))


@pytest.fixture(scope='module')
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    train(TrainConfig(**CONFIG, name='run', runs_dir=str(folder), steps=4, save_every=2))
    shutil.rmtree(folder / 'run' / 'checkpoints' / 'step_00000004')
    return folder


@pytest.mark.parametrize('place', ['checkpoints/step_00000002/model.safetensors',
                                   'checkpoints/step_00000002/optimizer.safetensors',
                                   'checkpoints/step_00000002/meta.json', 'config.json'])
def test_a_crafted_run_folder_runs_no_code(tmp_path, two_steps, place, capsys):
    shutil.copytree(two_steps / 'run', tmp_path / 'run')
    marker, path = tmp_path / 'marker', tmp_path / 'run' / place
    path.write_bytes(pickle.dumps(Evil(marker)))
    meta = tmp_path / 'run' / 'checkpoints' / 'step_00000002' / 'meta.json'
    if path != meta and path.name != 'config.json':          # whoever crafts a file crafts its hash as well
        from xar_lab.shards import sha256
        facts = json.loads(meta.read_text())
        facts['files'][path.name] = dict(bytes=path.stat().st_size, sha256=sha256(path))
        meta.write_text(json.dumps(facts))
    config = json.loads((two_steps / 'run' / 'config.json').read_text())['config']
    go_on = lambda: train(TrainConfig(**config | dict(runs_dir=str(tmp_path))))          # from step 2
    if path == meta:                                                                     # set aside; begun again
        go_on()
        assert 'step_00000002 is damaged' in capsys.readouterr().out
    else:
        with pytest.raises(ValueError, match=path.name): go_on()
    assert not marker.exists()


@pytest.mark.parametrize('name', ['../out', 'a/b', '..'])
def test_a_run_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match='name must be the plain name of a folder'):
        train(TrainConfig(**CONFIG, name=name, runs_dir=str(tmp_path / 'runs')))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_at_each_writer(need):
    done = subprocess.run([sys.executable, Path(__file__).parent / 'full_disk.py'], capture_output=True, text=True)
    print(done.stdout)
    need(done.returncode != 77, 'a small file system can be mounted by root only')
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
