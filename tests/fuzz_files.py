"Files and folders that fuzz.py damages: images, samples, latent caches, weights, autoencoders, whole runs, and links."

import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fuzz import Case
from fuzz_parameters import TINY
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from xar_lab.autoencoder import autoencoder_facts, make_autoencoder, save_autoencoder
from xar_lab.cache import cache_latents, open_latents
from xar_lab.checkpoints import load_model, read_tensors
from xar_lab.data import load_dataset
from xar_lab.evaluation import EvalReport, evaluate, evaluate_samples
from xar_lab.features import Classifier, load_classifier, real_images, save_classifier
from xar_lab.fid50k import read_reference
from xar_lab.latents import make_codec
from xar_lab.runs import checkpoints, list_runs, runs_table
from xar_lab.sample_files import read_samples, save_images
from xar_lab.samples import DrawnImages, Source, balanced_labels, draw_shards
from xar_lab.state import load_run
from xar_lab.training import TrainConfig, train

CLASSES, DIGITS = ('ant', 'bee', 'cat'), [str(k) for k in range(10)]
LONGER = {**TINY, 'steps': 4, 'save_every': 1, 'keep': 3, 'sample_every': 4}


@dataclass
class Whole:
    "What was made before anything is damaged."

    here: Path
    truth: dict  # kind -> what its reader gives when nothing is damaged

    @property
    def run(self) -> Path:
        return self.here / 'run' / 'runs' / 'run'


# --- what is damaged, and how it is read -----------------------------------------------------------------------------


def make_images(folder: Path):
    random = np.random.default_rng(0)
    for split, count in dict(train=5, val=4).items():
        for name in CLASSES:
            (folder / 'pictures' / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / 'pictures' / split / name / f'{i}.png')


def make_run(folder: Path, **values):
    config = TrainConfig(**{**TINY, 'runs_dir': str(folder / 'runs'), **values})
    train(config, follow=lambda row: row['step'] >= 2)


def make_cache(folder: Path):
    images = real_images(load_dataset('digits', 'test'))[0]
    save_autoencoder(make_autoencoder(1, 2, [4, 8], side=8), folder / 'autoencoder', images)
    cache_of(folder)


def cache_of(folder: Path, **options):
    spec = dict(name='diffusers', folder='autoencoder')  # the current folder is the case's own
    cache_latents(
        partial(load_dataset, 'digits', 'test'), partial(make_codec, **spec), folder / 'cache', codec_spec=spec,
        **dict(shard_size=200, batch_size=100, progress=False) | options,
    )


def make_samples(folder: Path):
    images, labels = real_images(load_dataset('digits', 'test'))
    images, labels = images[:40], labels[:40]
    save_images(images, folder / 'samples', labels)
    np.savez(folder / 'samples.npz', images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    features = images.flatten(1).double().numpy()
    np.savez(folder / 'statistics.npz', mu=features.mean(0), sigma=np.cov(features.T))


def make_weights(folder: Path):
    torch.manual_seed(0)
    save_classifier(Classifier(1, 8, 10, 16, 4).eval(), folder / 'classifier.safetensors', accuracy=0.9)


def make_evaluation(folder: Path):
    make_run(folder)
    evaluate(str(folder / 'runs' / 'run'), n=20, steps=1, sampler='euler', batch_size=10, progress=False)


def make_shards(folder: Path):
    make_run(folder)
    shards_of(folder)


def shards_of(folder: Path):
    return draw_shards(
        Source(run='runs/run'), balanced_labels(20, 10), folder / 'shards', precision='float32', shard_size=8,
        batch_size=8, sampling=dict(sampler='euler', steps=1), progress=False,
    )


def digest(tensors) -> list:
    return [(str(k), t.shape, zlib.crc32(t.contiguous().float().numpy().tobytes())) for k, t in sorted(tensors.items())]


def read_images(folder: Path):
    "Every picture by its path, and those that are broken."
    data = load_dataset('folder', 'train', root=str(folder / 'pictures'))
    found = {path: zlib.crc32(data[i][0].numpy().tobytes()) for i, path in enumerate(data.paths)}
    return found, {path for path, _ in data.broken}, data.num_classes


def read_a_run(folder: Path):
    model, codec, config = load_run(folder / 'runs' / 'run')
    return digest(model.state_dict()), codec.factor, config.layout, config.seed


def resume(folder: Path):
    train(TrainConfig(**{**LONGER, 'runs_dir': str(folder / 'runs')}))
    return digest(read_tensors(checkpoints(folder / 'runs' / 'run')[-1] / 'model.safetensors'))


def table(folder: Path):
    runs_table(folder / 'runs')
    return [row['name'] for row in list_runs(folder / 'runs')]


def read_cache(folder: Path):
    data = open_latents(folder / 'cache')
    return (
        len(data), zlib.crc32(b''.join(data[i][0].numpy().tobytes() for i in range(len(data)))),
        data.labels.tolist(), data.num_classes,
    )


def finish_cache(folder: Path):
    cache_of(folder, verify=True)
    return read_cache(folder)


def read_some(folder: Path, name='samples'):
    images, labels = read_samples(folder / name, DIGITS)
    return zlib.crc32(images.numpy().tobytes()), None if labels is None else labels.tolist()


def read_codec(folder: Path):
    codec = make_codec('diffusers', folder=str(folder / 'autoencoder'))
    autoencoder_facts(folder / 'autoencoder')
    latents = codec.encode(torch.zeros(1, 1, 8, 8))
    return (
        codec.fingerprint(), codec.channels,
        bool(latents.isfinite().all() and codec.decode(latents).isfinite().all()),
    )


def read_net(folder: Path):
    net = load_classifier(folder / 'classifier.safetensors')
    return bool(net(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))[1].isfinite().all())


def read_weights(folder: Path):
    model = load_model(folder / 'runs' / 'run' / 'checkpoints' / 'step_00000002' / 'ema.safetensors')
    return all(bool(t.isfinite().all()) for t in model.state_dict().values())


def read_statistics(folder: Path):
    reference = read_reference(folder / 'statistics.npz')
    return None if reference.statistics is None else bool(np.isfinite(reference.statistics['sigma']).all())


def read_report(folder: Path):
    report = EvalReport.read(folder / 'runs' / 'run' / 'eval' / 'default')
    return len(repr(report)) > 100 and '|' in report.table() and report.numbers['n']


def read_shards(folder: Path):
    return zlib.crc32(DrawnImages(folder / 'shards').all().numpy().tobytes())


def draw_again(folder: Path):
    return zlib.crc32(shards_of(folder).all().numpy().tobytes())


def fewer(found, truth, folder):
    "Whether images are missing without a word, or are others."
    images, broken, classes = found
    wanted, _, number = truth
    if classes != number:
        return f'{classes} classes'
    if lost := wanted.keys() - images.keys() - broken:
        return f'{sorted(lost)[:3]} are neither there nor told of'
    if other := [k for k in wanted.keys() & images.keys() if wanted[k] != images[k]]:
        return f'{other[:3]} look different'


def different(found, truth, folder):
    return None if found == truth else f'{str(found)[:120]} instead of {str(truth)[:120]}'


def anything(found, truth, folder):
    return None


def not_fewer_rows(found, truth, folder):
    return None if set(found) <= set(truth) else f'rows {found}'


# kind -> (what makes it, how it is read, how results are compared, what may be written)
KINDS = dict(
    images=(make_images, read_images, fewer, []), run=(make_run, read_a_run, different, []),
    resumed=(partial(make_run, **LONGER), resume, different, ['runs']),
    runs_table=(make_run, table, not_fewer_rows, []), cache=(make_cache, read_cache, different, []),
    cache_again=(make_cache, finish_cache, different, ['cache']), samples=(make_samples, read_some, different, []),
    samples_npz=(make_samples, partial(read_some, name='samples.npz'), different, []),
    statistics=(make_samples, read_statistics, different, []), autoencoder=(make_cache, read_codec, different, []),
    classifier=(make_weights, read_net, different, []), weights=(make_run, read_weights, different, []),
    report=(make_evaluation, read_report, different, []), shards=(make_shards, read_shards, different, []),
    shards_again=(make_shards, draw_again, different, ['shards']),
)
# the files of a kind that its reader uses: others are not damaged
FILES = dict(
    images=['pictures'], samples=['samples'], samples_npz=['samples.npz'], statistics=['statistics.npz'],
    autoencoder=['autoencoder'], cache=['cache'], cache_again=['cache'], shards=['shards'], shards_again=['shards'],
    report=['runs/run/eval/default/report.json'], weights=['runs/run/checkpoints/step_00000002/ema.safetensors'],
)


def prepare(here: Path, wanted: Callable[[str], bool]) -> Whole:
    "Everything once, in processes of its own: nothing is computed in the one that forks."
    truth = {}
    for kind, (make, read, _, _) in KINDS.items():
        judged = kind == 'run' and (wanted('evaluate') or wanted('draw_shards'))
        if not (judged or wanted('lost') or wanted(f'{kind} (files)')): continue
        (here / kind).mkdir(parents=True)
        pid = os.fork()
        if not pid:
            try:
                quiet = os.open(here / f'{kind}.log', os.O_RDWR | os.O_CREAT)
                os.dup2(quiet, 1), os.dup2(quiet, 2)
                os.chdir(here / kind)
                make(here / kind)
                shutil.copytree(here / kind, here / f'{kind}-read')
                os.chdir(here / f'{kind}-read')
                (here / f'{kind}.json').write_text(repr(read(here / f'{kind}-read')))
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f'{kind}: {(here / f"{kind}.log").read_text()[-2000:]}')
        truth[kind] = eval((here / f'{kind}.json').read_text(), dict(torch=torch, inf=math.inf))  # our own repr
    return Whole(here, truth)


# --- damage to bytes -------------------------------------------------------------------------------------------------


def shorten(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path, share):
    data = bytearray(path.read_bytes())
    data[min(int(share * len(data)), len(data) - 1)] ^= 0x5A
    path.write_bytes(data)


def replace(path, content: bytes):
    path.write_bytes(content)


def append(path, content: bytes):
    path.write_bytes(path.read_bytes() + content)


def remove(path):
    path.unlink()


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def as_link(path, to):
    path.unlink()
    path.symlink_to(to)


BYTES = [
    *((shorten, share) for share in (0.0, 0.01, 0.3, 0.9, 0.999)),
    *((flip, share) for share in (0.0, 0.001, 0.1, 0.5, 0.95, 1.0)),
    *(
        (replace, content)
        for content in (
            b'\0' * 64, b'PK\3\4', b'\x80\x04.', b'{}', b'[]', b'12', b'"x"', b'null',
            b'\xff\xfe{',
            b'<html>', struct.pack('<Q', 2**40) + b'{}',
            struct.pack('<Q', 100_000) + b'[' * 100_000,
            b'[' * 100_000,
        )
    ),
    *((append, content) for content in (b'\0', b'\n{', b'x' * 100)),
    (remove,), (as_folder,), (as_pipe,), (as_link, 'nowhere'), (as_link, '../../../../../../beside/thesis.txt'),
    (as_link, '/etc/hostname'),
]


# --- damage to JSON --------------------------------------------------------------------------------------------------

JSON_JUNK = [
    None, True, -1, 1.5, 10**400, 1e308, math.nan, math.inf, 'abc', '', '../../x', '<img src=x>', [], [None], [[]],
    {}, {'a': 1}, 'x' * 5000,
]


def places(value, path=()) -> list:
    "The paths to everything in a JSON value."
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [p for key, v in inner for p in ((*path, key), *places(v, (*path, key)))]


def damage_json(path: Path, choose: float, junk):
    "Replace (or remove, for junk = ...) one value of a JSON file or of a line of a .jsonl; `choose` in [0, 1)."
    lines = path.read_text().splitlines() if path.suffix == '.jsonl' else [path.read_text()]
    number = int(choose * 7919) % max(1, len(lines))
    value = json.loads(lines[number])
    known = places(value)
    if not known:
        return
    *above, key = known[int(choose * len(known))]
    target = value
    for step in above:
        target = target[step]
    if junk is ...:
        del target[key]
    else:
        target[key] = junk
    lines[number] = json.dumps(value)
    path.write_text('\n'.join(lines) + '\n' * (path.suffix == '.jsonl'))


# --- damage to tensors -----------------------------------------------------------------------------------------------


def damage_tensors(path: Path, choose: float, how: str):
    "Change one tensor of a safetensors file, or its header."
    from safetensors import safe_open

    state = load_file(path)
    with safe_open(path, 'pt') as f:
        header = f.metadata() or {}
    name = sorted(state)[int(choose * len(state))]
    t = state[name]
    if how == 'drop':
        del state[name]
    elif how == 'extra':
        state['stranger'] = torch.zeros(3)
    elif how == 'nan':
        state[name] = t.float().clone()
        state[name].view(-1)[:1] = math.nan
    elif how == 'inf':
        state[name] = torch.full_like(t.float(), math.inf)
    elif how == 'int8':
        state[name] = t.to(torch.int8)
    elif how == 'bool':
        state[name] = t.bool()
    elif how == 'empty':
        state[name] = torch.zeros(0)
    elif how == 'shape':
        state[name] = t.flatten()[None].repeat(2, 1)
    elif how == 'scalar':
        state[name] = torch.tensor(1.0)
    elif how == 'header':
        header = {}
    elif how.startswith('header '):
        header = {k: how.removeprefix('header ') for k in header}
    save_file(state, path, header or None)


TENSORS = [
    'drop', 'extra', 'nan', 'inf', 'int8', 'bool', 'empty', 'shape', 'scalar', 'header', 'header {}', 'header [1]',
    'header ' + '[' * 2000,
    'header {"width": "x"}',
    'header {"kind": 3, "width": 10000000000, "depth": [1, 1], "heads": 1, "in_channels": 4, "num_classes": 10}',
]


# --- cases -----------------------------------------------------------------------------------------------------------


def files_of(whole: Whole, kind: str) -> list[Path]:
    roots = FILES.get(kind, ['.'])
    found = [
        p
        for root in roots
        for p in (
            [whole.here / kind / root]
            if (whole.here / kind / root).is_file()
            else (whole.here / kind / root).rglob('*')
        )
    ]
    return sorted(p.relative_to(whole.here / kind) for p in found if p.is_file() and p.name != '.lock')


def damaged(whole: Whole, kind: str, file: Path, how, *args):
    "One file of a kind, damaged."
    make, read, compare, ours = KINDS[kind]

    def before(folder):
        shutil.copytree(whole.here / kind, folder, dirs_exist_ok=True, symlinks=True)
        how(folder / file, *args)

    check = lambda result, folder: compare(result, whole.truth[kind], folder)
    said = ', '.join(repr(a)[:50] for a in args)
    names = (file.name, 'work/', 'runs/run')
    return Case(f'{kind} (files)', f'{file}: {how.__name__} {said}', read, names, check, tuple(ours)), before


def fits(file: Path, kind: str) -> list:
    "The kinds of damage that a file can take, with their arguments."
    # nobody can tell that a picture was taken away, or a folder put in its place
    found = [(how, args) for how, *args in BYTES if not (kind == 'images' and how in (remove, as_folder))]
    if file.suffix in ('.json', '.jsonl'):
        found += [(damage_json, [k / 23, junk]) for k in range(23) for junk in (..., *JSON_JUNK)]
    if file.suffix == '.safetensors':
        found += [(damage_tensors, [k / 5, how]) for k in range(5) for how in TENSORS]
    return found


def strategies(whole: Whole) -> dict:
    "family -> (its weight, what hypothesis draws cases from)."

    def of(kind):
        files = files_of(whole, kind)
        return st.sampled_from(files).flatmap(
            lambda file: st.sampled_from(fits(file, kind)).map(
                lambda chosen: damaged(whole, kind, file, chosen[0], *chosen[1])
            )
        )

    return {f'{kind} (files)': (1, of(kind)) for kind in KINDS if kind in whole.truth}


def folder_case(family, what, before, call, names, wrong=lambda result, folder: None, ours=()):
    return Case(family, what, call, tuple(names), wrong, tuple(ours)), before


def picture(path, mode='RGB', size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


ODD_FILES = dict(
    a_pipe=lambda at: os.mkfifo(at / 'x.png'), a_folder=lambda at: (at / 'x.png').mkdir(),
    a_loop=lambda at: (at / 'loop').symlink_to('.'), a_loop_above=lambda at: (at / 'loop').symlink_to('..'),
    a_dangling_link=lambda at: (at / 'x.png').symlink_to('nowhere'),
    text=lambda at: (at / 'x.png').write_text('not a picture'), nothing=lambda at: (at / 'x.png').write_bytes(b''),
    not_utf8=lambda at: shutil.copy(at / '0.png', os.fsencode(at) + b'/\xff\xfe.png'),
    newline=lambda at: shutil.copy(at / '0.png', at / 'a\nb.png'),
    sixteen_bits=lambda at: picture(at / 'x.png', 'I;16'),
    floats=lambda at: Image.new('F', (8, 8)).save(at / 'x.tif'), palette=lambda at: picture(at / 'x.png', 'P'),
    see_through=lambda at: picture(at / 'x.png', 'RGBA'), cmyk=lambda at: picture(at / 'x.jpg', 'CMYK'),
    bilevel=lambda at: picture(at / 'x.png', '1'), other_size=lambda at: picture(at / 'x.png', size=(9, 8)),
    one_pixel=lambda at: picture(at / 'x.png', size=(1, 1)),
    huge=lambda at: (at / 'x.png').write_bytes(bomb(60_000)), hidden=lambda at: picture(at / '.x.png'),
    upper_case=lambda at: picture(at / 'X.PNG'),
    a_link_out=lambda at: (at / 'x.png').symlink_to(at.parents[3] / 'beside' / 'thesis.txt'),
    svg=lambda at: (at / 'x.svg').write_text('<svg/>'),
    an_archive=lambda at: (at / 'x.png').write_bytes(b'PK\3\4' + b'\0' * 100),
    device=lambda at: (at / 'x.png').symlink_to('/dev/zero'),
)


def bomb(side: int) -> bytes:
    "A PNG that says it is side×side pixels."

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(b'\0' * 100))
        + chunk(b'IEND', b'')
    )


def odd_images(whole, name, put):
    def before(folder):
        shutil.copytree(whole.here / 'images', folder, dirs_exist_ok=True)
        put(folder / 'pictures' / 'train' / 'ant')

    check = lambda found, folder: fewer(found, whole.truth['images'], folder)
    return folder_case(
        'images (files)', f'beside good images: {name}', before, read_images, ['pictures', 'x.', 'image'], check
    )


def odd_samples(whole, name, put):
    def before(folder):
        shutil.copytree(whole.here / 'samples', folder, dirs_exist_ok=True)
        shutil.copy(folder / 'samples' / '000000.png', folder / 'samples' / '0.png')
        put(folder / 'samples')
        (folder / 'samples' / '0.png').unlink()

    check = lambda found, folder: different(found, whole.truth['samples'], folder)
    return folder_case('samples (files)', f'beside good samples: {name}', before, read_some, ['samples'], check)


ODD_ARRAYS = dict(
    floats=dict(images=np.zeros((10, 8, 8, 1))), flat=dict(images=np.zeros((10, 64), np.uint8)),
    channels_first=dict(images=np.zeros((10, 1, 8, 8), np.uint8)),
    none=dict(images=np.zeros((0, 8, 8, 1), np.uint8)), other_size=dict(images=np.zeros((10, 9, 8, 1), np.uint8)),
    objects=dict(images=np.array([{}, None], dtype=object)), no_images=dict(labels=np.zeros(3, int)),
    few_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.zeros(9, int)),
    float_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.full(10, 9.9)),
    big_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.full(10, 10)),
    negative_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.full(10, -1)),
    text_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.array(['a'] * 10)),
    huge_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.full(10, 2**63, np.uint64)),
    bool_labels=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.ones(10, bool)),
    two_by_two=dict(images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.zeros((10, 2), int)),
    one=dict(images=np.zeros((1, 8, 8, 1), np.uint8)), four=dict(images=np.zeros((4, 8, 8, 1), np.uint8)),
    all_black=dict(images=np.zeros((20, 8, 8, 1), np.uint8)),
)


def odd_arrays(name, arrays):
    def before(folder):
        np.savez(folder / 'samples.npz', **arrays)

    def call(folder):
        return evaluate_samples(folder / 'samples.npz', 'digits', folder=folder / 'evaluation', progress=False)

    def wrong(report, folder):
        bad = [k for k, v in report.metrics.items() if not math.isfinite(v)]
        if bad:
            return f'{bad} not finite'
        if name not in ('all_black', 'one', 'four'):
            return 'was taken'

    return folder_case('evaluate_samples', name, before, call, ['samples'], wrong, ['evaluation'])


def odd_statistics(name, arrays):
    def before(folder):
        np.savez(folder / 'statistics.npz', **arrays)

    return folder_case(
        'statistics (files)', name, before, read_statistics, ['statistics.npz'],
        lambda result, folder: None if result else 'was taken',
    )


STATISTICS = dict(
    nan=dict(mu=np.zeros(4), sigma=np.full((4, 4), np.nan)), shape=dict(mu=np.zeros(4), sigma=np.eye(3)),
    askew=dict(mu=np.zeros(2), sigma=np.array([[1.0, 2], [0, 1]])),
    none=dict(mu=np.zeros(0), sigma=np.zeros((0, 0))), text=dict(mu=np.array(['a']), sigma=np.array([['b']])),
    complex=dict(mu=np.zeros(2, complex), sigma=np.eye(2, dtype=complex)),
    objects=dict(mu=np.array([{}], dtype=object), sigma=np.array([[None]], dtype=object)),
    only_mu=dict(mu=np.zeros(4)), negative=dict(mu=np.zeros(2), sigma=-np.eye(2)),
)


def in_a_run(whole, what, before, call, names, ours, kind='run', kept=()):
    "A run that a stranger gave us, or that its owner put something in."

    def make(folder):
        shutil.copytree(whole.here / kind, folder, dirs_exist_ok=True)
        before(folder)

    def wrong(result, folder):
        lost = [name for name in kept if not (folder / name).exists()]
        return f'lost: {lost}' if lost else None

    return folder_case('lost', what, make, call, names, wrong, ours)


def evaluate_here(where, **options):
    return evaluate(
        str(where / 'runs' / 'run'), **dict(n=20, steps=1, sampler='euler', batch_size=10, progress=False) | options
    )


def links(whole):
    "Links that lead out of a run, and what an owner keeps in one."

    def link(name, to='beside'):
        def put(folder):
            path = folder / 'runs' / 'run' / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            target = folder.parent / 'beside' / ('thesis.txt' if path.suffix else '')
            path.symlink_to(target)

        return put

    for name in (
        'config.json', 'cost.json', 'metrics.jsonl', 'faults.jsonl', '.lock', 'checkpoints', 'samples', 'failures',
    ):
        yield in_a_run(whole, f'{name} is a link out; train', link(name), resume, [name, 'run'], ['runs'], 'resumed')
    for name in (
        'eval', 'eval/default', 'eval/default/shards', 'eval/default/report.json', 'eval/default/samples.npz',
        'eval/default/grid.png',
    ):
        yield in_a_run(whole, f'{name} is a link out; evaluate', link(name), evaluate_here, [name, 'run'], ['runs'])

    def copy(folder):
        at = folder / 'runs' / 'run' / 'checkpoints'
        shutil.copytree(checkpoints(folder / 'runs' / 'run')[0], at / 'step_00000001_best')
        for name in ('step_best', 'best', 'step_1'):
            (at / name).mkdir()
        (at / 'notes.txt').write_text('mine')

    at = 'runs/run/checkpoints/'
    kept = [at + name for name in ('step_00000001_best/model.safetensors', 'step_best', 'best', 'step_1', 'notes.txt')]
    yield in_a_run(whole, 'copies beside checkpoints; train', copy, resume, ['run'], ['runs'], 'resumed', kept)

    def own(*names):
        def put(folder):
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text('{"holiday.png": 3}')

        return put

    out = lambda folder: evaluate_here(folder, folder=folder / 'out')
    for names in (
        ['out/shards/mine.txt'], ['out/report.json'], ['out/samples.npz'], ['out/grid.png'],
        ['out/shards/plan.json'], ['out/shards/shard-00000.json'], ['out/shards/shard-00000.safetensors'],
        ['out/notes/mine.txt'],
    ):
        case, before = in_a_run(
            whole, f'own files {names}; evaluate', own(*names), out, ['out'], ['out', 'runs'], kept=names
        )

        def wrong(result, folder, names=names):
            lost = [
                n
                for n in names
                if not (folder / n).exists() or (folder / n).read_text(errors='replace') != '{"holiday.png": 3}'
            ]
            return f'lost: {lost}' if lost else None

        case.wrong = wrong
        yield case, before

    def store(folder):
        return save_images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), folder / 'out', torch.arange(3))

    for names in (
        ['out/000001.png'], ['out/labels.json'], ['out/labels.json', 'out/holiday.png'], ['out/holiday.png'],
        ['out/000007.png'],
    ):

        def wrong(result, folder, names=names):
            lost = [
                n
                for n in names
                if not (folder / n).exists() or (folder / n).read_text(errors='replace') != '{"holiday.png": 3}'
            ]
            return f'lost: {lost}' if lost else None

        yield folder_case('lost', f'own files {names}; save_images', own(*names), store, ['out'], wrong, ['out'])

    def store_cache(folder):
        cache_of(folder)

    for names in (
        ['cache/plan.json'], ['cache/manifest.json'], ['cache/shard-00000.json'], ['cache/shard-00000.safetensors'],
        ['cache/mine.txt'],
    ):

        def before(folder, names=names):
            shutil.copytree(whole.here / 'cache' / 'autoencoder', folder / 'autoencoder')
            own(*names)(folder)

        def wrong(result, folder, names=names):
            lost = [
                n
                for n in names
                if not (folder / n).exists() or (folder / n).read_text(errors='replace') != '{"holiday.png": 3}'
            ]
            return f'lost: {lost}' if lost else None

        yield folder_case('lost', f'own files {names}; cache_latents', before, store_cache, ['cache'], wrong, ['cache'])


def known(whole: Whole) -> list:
    "Cases one by one."
    found = [odd_images(whole, *pair) for pair in ODD_FILES.items()] + [
        odd_samples(whole, *pair) for pair in ODD_FILES.items()
    ]
    found += (
        [odd_arrays(*pair) for pair in ODD_ARRAYS.items()]
        + [odd_statistics(*pair) for pair in STATISTICS.items()]
        + list(links(whole))
    )
    for kind, file in (
        ('run', 'runs/run/config.json'), ('cache', 'cache/manifest.json'), ('cache_again', 'cache/plan.json'),
        ('shards', 'shards/plan.json'), ('samples', 'samples/labels.json'),
        ('report', 'runs/run/eval/default/report.json'), ('runs_table', 'runs/run/metrics.jsonl'),
        ('autoencoder', 'autoencoder/config.json'),
    ):
        found += [damaged(whole, kind, Path(file), how, *args) for how, *args in BYTES[:24:2]]
    return found
