"""Kill five kinds of work at random moments, start them again every time, and compare with what was never killed.

    python tests/kill_often.py [kills, default 200] [seed, default 0]
    python tests/kill_often.py --mutant in_place|moments|order          # must end with an error: the test can fail

Training, a loop over several configs, a latent cache, samples in shards, an evaluation. When to kill is decided by
what a process has written, not by a clock, so that a busy machine changes nothing: two kills in three come after the
first checkpoint or shard, one in four when a half-written file is there. Both shares are checked at the end. After
every kill, whatever bears a finished name must be whole; in the end, every tensor and number must be the same.

Processes are forked from this one, which has imported everything and computes nothing: no kill waits for imports.
"""
import os

os.environ['OMP_NUM_THREADS'] = '1'                      # before torch: a pool of threads does not survive a fork

import argparse  # noqa: E402
import collections  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import xar_lab.state  # noqa: E402
import xar_lab.training  # noqa: E402
from xar_lab.autoencoder import make_autoencoder, save_autoencoder  # noqa: E402
from xar_lab.cache import cache_latents  # noqa: E402
from xar_lab.checkpoints import read_tensors  # noqa: E402
from xar_lab.core import sha256, write_json  # noqa: E402
from xar_lab.data import load_dataset  # noqa: E402
from xar_lab.evaluation import evaluate  # noqa: E402
from xar_lab.features import real_images  # noqa: E402
from xar_lab.latents import make_codec  # noqa: E402
from xar_lab.runs import checkpoints, damage  # noqa: E402
from xar_lab.samples import Source, balanced_labels, draw_shards  # noqa: E402
from xar_lab.training import TrainConfig, train  # noqa: E402

CONFIG = dict(steps=40, batch_size=8, log_every=1, save_every=3, sample_every=40, sample_steps=1, dropout=.1,
              precision='float32')
AFTER_FIRST, HALF_WRITTEN = 2 / 3, 1 / 4                 # shares of the kills, wanted and checked


def train_one(folder, **values): train(TrainConfig(runs_dir=str(folder), **{**CONFIG, 'name': 'run', **values}))


def train_several(folder):
    for lr in (1e-3, 2e-3, 3e-3): train_one(folder, name=f'lr-{lr:g}', lr=lr, steps=14)


def cache(folder, autoencoder):
    spec = dict(name='diffusers', folder=str(autoencoder))
    cache_latents(partial(load_dataset, 'digits', 'test'), partial(make_codec, **spec), folder, codec_spec=spec,
                  shard_size=25, batch_size=25, progress=False)


def draw(folder, run):
    draw_shards(Source(run=str(run)), balanced_labels(60, 10), folder, sampling=dict(sampler='sde', steps=2),
                shard_size=4, batch_size=4, precision='float32', progress=False)


def judge(folder, run): evaluate(run, n=20, folder=folder, steps=2, batch_size=2, progress=False)


def of_runs(folder) -> dict:
    "Every tensor of the last checkpoint of every run, and its losses."
    found = {}
    for path in sorted(folder.glob('*/config.json')):
        run = path.parent
        for name in ('model', 'ema', 'optimizer'):
            tensors = read_tensors(checkpoints(run)[-1] / f'{name}.safetensors')
            found |= {f'{run.name}/{name}/{key}': t.numpy().tobytes() for key, t in tensors.items()}
        rows = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
        found[f'{run.name}/losses'] = [(row['step'], row['loss']) for row in rows]
    return found


def of_shards(folder) -> dict: return {p.name: sha256(p) for p in sorted(folder.glob('shard-*.safetensors'))}


def of_report(folder) -> dict:
    report = json.loads((folder / 'report.json').read_text())
    return {k: report[k] for k in ('metrics', 'floors', 'weights', 'sampling', 'n')}


def paths(folder) -> list[Path]:
    "Everything in a folder, while another process writes and renames in it."
    return [Path(here, name) for here, folders, files in os.walk(folder) for name in (*folders, *files)]


def finished(folder) -> list[Path]:
    "What bears a finished name: checkpoints, and descriptions of shards."
    return [p for p in paths(folder) if p.name.startswith('step_') and p.parent.name == 'checkpoints'
            or p.name.startswith('shard-') and p.suffix == '.json' and not p.parent.name.startswith('.')]


def half_written(folder) -> bool:
    return any(re.match(r'\.step_|\.\d+\.(shard|manifest|report|samples|grid)', p.name) for p in paths(folder))


def broken(folder) -> list[str]:
    "What bears a finished name and is not whole."
    faults = [f'{p.name}: {why}' for p in folder.glob('*/checkpoints/step_*') if (why := damage(p))]
    faults += [p.name for p in folder.glob('*/checkpoints/damaged_*')]
    for mark in (p for p in finished(folder) if p.suffix == '.json'):
        if sha256(mark.with_suffix('.safetensors')) != json.loads(mark.read_text())['sha256']: faults.append(mark.name)
    return faults


def in_place(folder, step, write, meta=None, keep=2, milestone_every=None):
    "A checkpoint written under its final name."
    final = Path(folder) / 'checkpoints' / f'step_{step:08d}'
    if final.exists(): return final
    final.mkdir(parents=True)
    write(final)
    files = {p.name: dict(bytes=p.stat().st_size, sha256=sha256(p)) for p in sorted(final.iterdir())}
    write_json(final / 'meta.json', {**(meta or {}), 'step': step, 'files': files})
    return final


def forgetful(load, path, state):
    "A checkpoint read without the optimizer's moments."
    load(path, state)
    for moments in state.optimizer.state.values(): moments['exp_avg'].zero_()


class FromTheStart(xar_lab.training.BatchOrder):
    "Data from the beginning, whatever step a run goes on from."
    def mine(self, step): return super().mine(step - self.start)


def mutate(name):
    if name == 'in_place': xar_lab.state.write_checkpoint = in_place
    if name == 'moments': xar_lab.training.load_checkpoint = partial(forgetful, xar_lab.training.load_checkpoint)
    if name == 'order': xar_lab.training.BatchOrder = FromTheStart


def begin(work, folder, mutant=None) -> int:
    "A process that does the work; its number."
    sys.stdout.flush()
    pid = os.fork()
    if pid: return pid
    status = 1
    try:
        with open(f'{folder}.log', 'a') as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            mutate(mutant)
            work(folder)
            status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally: os._exit(status)


def ended(pid) -> int | None:
    "The status of a process that has ended."
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def kill_once(pid, folder, moments, total) -> int | None:
    "Kill at a moment that is drawn from what is written; None, or the status if it ended before."
    there = len(finished(folder))
    wanted = there + moments.randrange(1, 3) if moments.random() < .85 else there
    inside, delay = moments.random() < .6, moments.uniform(0., .03)
    while len(finished(folder)) < min(wanted, total) or inside and not half_written(folder):
        if (status := ended(pid)) is not None: return status
        time.sleep(.0003)
    time.sleep(delay if not inside else delay / 20)
    if (status := ended(pid)) is not None: return status
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def kinds(here: Path, mutant) -> dict:
    "Name -> what is done in a folder, what is compared, how many pieces it has at most."
    images = real_images(load_dataset('digits', 'test'))[0]
    save_autoencoder(make_autoencoder(1, 2, [4, 8], side=8), here / 'autoencoder', images)
    trained = here / 'trained' / 'run'
    assert os.waitpid(begin(train_one, here / 'trained'), 0)[1] == 0, (here / 'trained.log').read_text()
    if mutant: return dict(train=(train_one, of_runs, 3))
    return dict(
        train=(train_one, of_runs, 3), sweep=(train_several, of_runs, 7),
        cache=(partial(cache, autoencoder=here / 'autoencoder'), of_shards, 20),
        sample=(partial(draw, run=trained), of_shards, 15), evaluate=(partial(judge, run=trained), of_report, 10))


def main(kills: int, seed: int, mutant: str | None) -> dict:
    "Counts of what happened."
    moments, counts, per_run = random.Random(seed), collections.Counter(), 6
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        for kind, (work, result, total) in (chosen := kinds(here, mutant)).items():
            assert os.waitpid(begin(work, here / f'{kind}-whole'), 0)[1] == 0, (here / f'{kind}-whole.log').read_text()
            wanted, share, rounds = result(here / f'{kind}-whole'), -(-kills // len(chosen)), 0
            while counts[kind] < share and not counts['DIFFERENT']:
                folder, rounds, here_killed = here / f'{kind}-{rounds}', rounds + 1, 0
                while True:
                    pid = begin(work, folder, mutant)
                    if here_killed < per_run and counts[kind] < share: status = kill_once(pid, folder, moments, total)
                    else: status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    if status is not None: break
                    here_killed += 1
                    counts[kind] += 1
                    counts['after the first checkpoint or shard'] += bool(finished(folder))
                    counts['with something half-written'] += half_written(folder)
                    if faults := broken(folder): counts['DIFFERENT'] += 1; print(f'{kind}: {faults}'); break
                if status not in (None, 0): counts['DIFFERENT'] += 1; print(Path(f'{folder}.log').read_text()[-2000:])
                elif status == 0 and result(folder) != wanted: counts['DIFFERENT'] += 1; print(f'{kind} differs')
                else: counts['the same to the last bit'] += status == 0
            print(f'{kind}: {counts[kind]} kills', flush=True)
    return dict(counts)


if __name__ == '__main__':
    reader = argparse.ArgumentParser()
    reader.add_argument('kills', type=int, nargs='?', default=200)
    reader.add_argument('seed', type=int, nargs='?', default=0)
    reader.add_argument('--mutant', choices=['in_place', 'moments', 'order'])
    given = reader.parse_args()
    counts = main(given.kills, given.seed, given.mutant)
    print(counts)
    done = sum(counts.get(kind, 0) for kind in ('train', 'sweep', 'cache', 'sample', 'evaluate'))
    shares = {'after the first checkpoint or shard': AFTER_FIRST, 'with something half-written': HALF_WRITTEN}
    few = [f'only {counts.get(what, 0)} of {done} {what}' for what, share in shares.items()
           if counts.get(what, 0) < share * done]
    sys.exit('DIFFERENT' if counts.get('DIFFERENT') else '; '.join(few) or None)
