"""The disk is full for one writer at a time: what does a run, a cache, an evaluation say, and what is left?

    python tests/full_disk.py [--only grid]

On a small file system of its own (tmpfs). Whenever the writer in question is about to write, the disk is filled to the
last byte, and emptied when another one writes: Python tells of every file that is opened and folder that is made.
Training must go on and say so, except at its last checkpoint; other work must end in one line. Then the same is started
again, with room, and must end as if nothing had happened. Exits with 77 where no file system may be mounted.
"""

import os

os.environ['OMP_NUM_THREADS'] = '1'  # before torch: a pool of threads does not survive a fork

import argparse  # noqa: E402
import contextlib  # noqa: E402
import fnmatch  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import traceback  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from conftest import fill  # noqa: E402

from xar_lab.autoencoder import make_autoencoder, save_autoencoder  # noqa: E402
from xar_lab.cache import cache_latents, open_latents  # noqa: E402
from xar_lab.callbacks import Callback  # noqa: E402
from xar_lab.checkpoints import read_tensors, save_model  # noqa: E402
from xar_lab.data import load_dataset  # noqa: E402
from xar_lab.entities import make_layout  # noqa: E402
from xar_lab.evaluation import evaluate  # noqa: E402
from xar_lab.features import real_images  # noqa: E402
from xar_lab.film import Film, save_gif, save_strip  # noqa: E402
from xar_lab.latents import make_codec  # noqa: E402
from xar_lab.model import XAR, XARConfig  # noqa: E402
from xar_lab.runs import checkpoints, damage  # noqa: E402
from xar_lab.sample_files import read_samples, save_images  # noqa: E402
from xar_lab.sampling import generate  # noqa: E402
from xar_lab.training import TrainConfig, train  # noqa: E402

MEGABYTES = 64
CONFIG = dict(
    steps=6, batch_size=8, log_every=1, save_every=2, sample_every=3, sample_steps=1, precision='float32', name='run'
)


class Disk:
    "A file system that is full while one writer writes."

    times = 0  # how often any was filled

    def __init__(self, place: Path, pattern: str = ''):
        self.place, self.pattern, self.busy = place, pattern, False

    def __call__(self, event: str, args: tuple):
        "For `sys.addaudithook`."
        if self.busy or not self.pattern or event not in ('open', 'os.mkdir'):
            return
        path = args[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        if not path.startswith(str(self.place)) or event == 'open' and not self._writes(args):
            return
        # a file is written in a folder of its own, .<process>.<name>/, and renamed
        wanted = any(
            fnmatch.fnmatch(part, f'{start}{self.pattern}') for part in path.split('/') for start in ('', '.*.')
        )
        self.busy = True
        try:
            self.fill() if wanted else self.empty()
        finally:
            self.busy = False

    @staticmethod
    def _writes(args) -> bool:
        mode, flags = args[1], args[2] if len(args) > 2 else 0
        return bool(set(mode or '') & set('wax+')) or bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))

    def fill(self):
        Disk.times += 1
        fill(self.place / 'ballast')

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.place / 'ballast')


# --- what is done ----------------------------------------------------------------------------------------------------


def training(disk):
    train(TrainConfig(runs_dir=str(disk / 'runs'), **CONFIG))


class FullWhileLogging(Callback):
    "metrics.jsonl is kept open, so that no opening tells of its lines; callbacks of one's own are told before it."

    def __init__(self, place):
        self.disk = Disk(place)

    def on_log(self, run, row):
        self.disk.fill()

    def on_step(self, run, step):
        self.disk.empty()


def logging(disk):
    "On a disk of its own only: anywhere else the real disk would be filled."
    full = [FullWhileLogging(disk)] if os.path.ismount(disk) else []
    train(TrainConfig(runs_dir=str(disk / 'runs'), **CONFIG), callbacks=full)


def with_bad_images(disk):
    "Every image of the data set but one is broken, and told of in faults.jsonl."
    from xar_lab.data import ImageDataset, register_dataset

    class Bad(ImageDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return (image * float('nan') if i % 7 == 0 else image), label

    images = load_dataset('digits', 'test')
    register_dataset('bad', lambda split: Bad(images.images, images.labels, images.class_names, levels=17))
    train(TrainConfig(**CONFIG | dict(runs_dir=str(disk / 'runs'), dataset='bad', patch=2)))


def evaluating(disk, run):
    evaluate(str(run), n=20, steps=1, sampler='euler', batch_size=5, folder=disk / 'evaluation', progress=False)


def caching(disk, autoencoder):
    spec = dict(name='diffusers', folder=str(autoencoder))
    cache_latents(
        partial(load_dataset, 'digits', 'test'), partial(make_codec, **spec), disk / 'cache', codec_spec=spec,
        shard_size=100, batch_size=100, progress=False,
    )


def pictures(disk):
    save_images(
        torch.arange(12 * 16 * 16).remainder(251).byte().view(12, 1, 16, 16), disk / 'out', torch.arange(12) % 10
    )


def model():
    torch.manual_seed(0)
    return XAR(XARConfig(16, (1, 1), heads=2, in_channels=4, num_classes=10), make_layout('cell', 4))


def weights(disk):
    save_model(model(), disk / 'model.safetensors')


def films(disk):
    net, codec = model(), make_codec('pixels', patch=2)
    out = generate(
        net, torch.tensor([3]), steps=3, sampler='euler', generator=torch.Generator().manual_seed(0), trajectory=True
    )
    film = Film(net, codec, out)
    save_gif(film, disk / 'film.gif')
    save_strip(film, disk / 'strip.png')


def autoencoder(disk):
    save_autoencoder(
        make_autoencoder(1, 2, [4, 8], side=8), disk / 'autoencoder', real_images(load_dataset('digits', 'test'))[0]
    )


# --- what must be there in the end -----------------------------------------------------------------------------------


def whole_run(disk):
    run = disk / 'runs' / 'run'
    last = checkpoints(run)[-1]
    assert last.name == 'step_00000006' and not damage(last), (last, damage(last))
    assert not list((run / 'checkpoints').glob('.*')), 'something half-written is left'
    assert json.loads((run / 'config.json').read_text())['config']['steps'] == 6
    return {k: t.numpy().tobytes() for k, t in read_tensors(last / 'ema.safetensors').items()}


def whole_evaluation(disk):
    return {k: v for k, v in json.loads((disk / 'evaluation' / 'report.json').read_text())['metrics'].items()}


def whole_cache(disk):
    data = open_latents(disk / 'cache')
    return [data[i][0].numpy().tobytes() for i in range(len(data))]


def whole_pictures(disk):
    return [t.numpy().tobytes() for t in read_samples(disk / 'out', [str(k) for k in range(10)])]


def whole_weights(disk):
    return {k: t.numpy().tobytes() for k, t in read_tensors(disk / 'model.safetensors').items()}


def whole_films(disk):
    return [(disk / name).read_bytes() for name in ('film.gif', 'strip.png')]


def whole_autoencoder(disk):
    return make_codec('diffusers', folder=str(disk / 'autoencoder')).channels


# work -> what is compared, and its writers: pattern of the file -> what the work must say (training goes on)
GOES_ON, ENDS = 'goes on', 'ends in one line'
WRITERS = dict(
    train=(
        training, whole_run,
        {
            'config.json': ENDS, 'cost.json': GOES_ON, 'events.out*': GOES_ON, 'step_00000003.png': GOES_ON,
            'samples': GOES_ON, '.step_00000002.*': GOES_ON, '.step_00000004.*': GOES_ON, '.step_00000006.*': ENDS,
        },
    ),
    lines=(logging, whole_run, {'metrics.jsonl': GOES_ON}),
    bad_images=(with_bad_images, whole_run, {'faults.jsonl': GOES_ON}),
    evaluate=(
        evaluating, whole_evaluation,
        {
            'plan.json': ENDS, 'shard-00000.safetensors': ENDS, 'shard-00002.json': ENDS, 'samples.npz': ENDS,
            'grid.png': ENDS, 'report.json': ENDS,
        },
    ),
    cache=(
        caching, whole_cache,
        {'plan.json': ENDS, 'shard-00000.safetensors': ENDS, 'shard-00003.json': ENDS, 'manifest.json': ENDS},
    ),
    pictures=(pictures, whole_pictures, {'labels.json': ENDS, '000003.png': ENDS}),
    weights=(weights, whole_weights, {'model.safetensors': ENDS}),
    films=(films, whole_films, {'film.gif': ENDS, 'strip.png': ENDS}),
    autoencoder=(autoencoder, whole_autoencoder, {'autoencoder': ENDS}),
)


def in_a_process(work) -> tuple[bool, str]:
    "Whether it ended without an error, and what it said."
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                work()
            status = 0
        except OSError as e:
            said.write(f'\n{type(e).__name__}: {e.strerror or e}')
        except BaseException:
            said.write('\n' + traceback.format_exc())
        finally:
            with os.fdopen(write, 'w') as pipe:
                pipe.write(said.getvalue())
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said


def try_writer(place: Path, work, result, wanted, pattern: str, must: str) -> str:
    "What is wrong with how a full disk was taken; '' for nothing."

    def full():
        disk = Disk(place, pattern)
        sys.addaudithook(disk)
        try:
            work(place)
        finally:
            disk.busy = True
            disk.empty()
            assert Disk.times, f'{pattern} was never written'

    good, said = in_a_process(full)
    lines = [line for line in said.splitlines() if 'full' in line or 'No space' in line]
    if 'was never written' in said or 'Traceback' in said:
        return said[-1200:]
    if good != (must == GOES_ON):
        return f'{"went on" if good else "ended"}: {said[-600:]}'
    if not lines:
        return f'not a word of it: {said[-600:]}'
    (place / 'ballast').unlink(missing_ok=True)
    good, again = in_a_process(partial(work, place))
    if not good:
        return f'with room again: {again[-1200:]}'
    found = in_another(partial(result, place))
    if found != wanted:
        return f'another result in the end: {str(found)[:300]}'
    print(f'    {lines[-1].strip()[:170]}')
    return ''


def in_another(compute):
    "What a function gives, in a process of its own: nothing is computed in the one that forks."
    with tempfile.NamedTemporaryFile() as file:
        good, said = in_a_process(lambda: torch.save(compute(), file.name))
        if not good:
            return said[-600:]
        return torch.load(file.name, weights_only=True)


def mounted(place: Path) -> bool:
    place.mkdir(exist_ok=True)
    return (
        subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={MEGABYTES}m', 'tmpfs', place], capture_output=True
        ).returncode
        == 0
    )


def main(only: str) -> int:
    "The number of writers at which a full disk was not taken well."
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        for made in (training, autoencoder):
            assert in_a_process(partial(made, here))[0]
        given = {'evaluate': dict(run=here / 'runs' / 'run'), 'cache': dict(autoencoder=here / 'autoencoder')}
        for kind, (work, result, writers) in WRITERS.items():
            work = partial(work, **given.get(kind, {}))
            whole = here / f'{kind}-whole'
            chosen = {pattern: must for pattern, must in writers.items() if only in f'{kind} {pattern}'}
            if not chosen:
                continue
            whole.mkdir()
            good, said = in_a_process(partial(work, whole))
            assert good, said
            wanted = in_another(partial(result, whole))
            for pattern, must in chosen.items():
                place = here / 'disk'
                if not mounted(place):
                    return -1
                try:
                    fault = try_writer(place, work, result, wanted, pattern, must)
                finally:
                    subprocess.run(['umount', place])
                faults += bool(fault)
                print(
                    f'{"FAULT" if fault else "ok":6s}{kind:12s}{pattern:26s}{must}' + (f'\n{fault}' if fault else ''),
                    flush=True,
                )
    return faults


if __name__ == '__main__':
    reader = argparse.ArgumentParser()
    reader.add_argument('--only', default='', help='writers whose name, such as "train cost.json", contains this')
    found = main(reader.parse_args().only)
    if found < 0:
        print('no file system can be mounted here')
        sys.exit(77)
    sys.exit(f'{found} writers did not take a full disk well' if found else None)
