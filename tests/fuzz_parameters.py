"Parameters that fuzz.py tries: of training, layouts, contexts, flows, codecs, networks, sampling, evaluation."

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fuzz import Case
from hypothesis import strategies as st

from xar_lab.checkpoints import read_tensors
from xar_lab.config import PARAMETERS, read_parameters
from xar_lab.context import make_context
from xar_lab.entities import make_layout
from xar_lab.evaluation import evaluate
from xar_lab.flow import make_flow
from xar_lab.latents import make_codec
from xar_lab.model import PRESETS, XAR, XARConfig
from xar_lab.runs import checkpoints
from xar_lab.samples import Source, balanced_labels, draw_samples, draw_shards
from xar_lab.sampling import generate, steps_per_entity
from xar_lab.training import TrainConfig, train

PRESETS['fuzzed'] = XARConfig(16, (1, 1), heads=2, in_channels=4, num_classes=10, time_channels=16)
TINY = dict(
    model='fuzzed', dataset='digits', steps=2, batch_size=4, log_every=1, save_every=2, sample_every=2,
    sample_steps=1, precision='float32', name='run',
)


class Thing:
    def __repr__(self):
        return 'Thing()'


JUNK = [
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**63, 10**400, -(10**400), 0.5, 1.0, 2.5, -0.1, 1e-320, 1e30,
    1e308, math.inf, -math.inf, math.nan, '', ' ', 'abc', '7', '1e-3', '../../x', 'a/b', '.', '..', 'a\0b', 'a\nb',
    'ü' * 300, '<img src=x onerror=alert(1)>', '\ud800', b'x', [], [1], [2, 2], [math.nan], [10**400], ['a'], [[]],
    [None], (1, 2), {}, {'a': 1}, {1: 2}, {'name': 'x'}, set(), {1}, Thing(), Thing, len, 1j, range(3), Path('x'),
    torch.tensor(1.0), torch.tensor([1, 2]), np.int64(2), np.float64(0.5), np.array([1.0, 2.0]), 'token' * 2000,
]
values = st.one_of(
    st.sampled_from(JUNK), st.integers(), st.floats(), st.text(max_size=12), st.booleans(),
    st.lists(st.one_of(st.integers(-3, 9), st.floats(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=6), st.integers(-2, 5), max_size=2),
)


def shown(value) -> str:
    return repr(value) if len(repr(value)) < 60 else repr(value)[:60] + '…'


def case(family, call, wrong=lambda result, folder: None, ours=(), names=(), **given):
    "A case whose message must name one of its parameters."
    what = ', '.join(f'{name}={shown(value)}' for name, value in given.items())
    return Case(family, what, partial(call, **given), (*given, *names), wrong, tuple(ours), tuple(spoken(given))), None


def spoken(given) -> list[str]:
    "How a message may name the values themselves."
    inside = [v for value in given.values() for v in (value if isinstance(value, dict) else [value])]
    return [text for v in inside for text in {repr_of(v), str(v) if isinstance(v, str) else repr_of(v)} if text]


def repr_of(value) -> str:
    try:
        return repr(value)[:60]
    except ValueError:
        return 'digits'


# --- training --------------------------------------------------------------------------------------------------------


def train_two_steps(folder, **given):
    config = TrainConfig(**{**TINY, 'runs_dir': str(folder / 'runs'), **given})
    return train(config, follow=lambda row: row['step'] >= 2)


def wrong_run(run, folder, **given):
    if not Path(run).resolve().is_relative_to(folder / 'runs') or Path(run).parent != folder / 'runs':
        return f'the run is in {run}'
    kept = json.loads((run / 'config.json').read_text())['config']
    for name, value in given.items():
        if value is not None and kept[name] != json.loads(json.dumps(value)):
            return f'{name} was kept as {kept[name]!r}'
    last = checkpoints(run)
    if not last:
        return 'no checkpoint'
    for name in ('model', 'ema'):
        tensors = read_tensors(last[-1] / f'{name}.safetensors')
        if not all(t.isfinite().all() for t in tensors.values()):
            return f'{name} holds NaN'


def training(**given):
    elsewhere = 'runs_dir' in given and isinstance(given['runs_dir'], str)
    check = partial(wrong_run, **given) if not elsewhere else lambda result, folder: None
    names = {'name': ['runs_dir']}.get(next(iter(given)), [])
    return case('training', train_two_steps, check, ours=['runs'], names=names, **given)


NOT_TRAINED = {'runs_dir', 'init_from', 'compile', 'callbacks', 'workers'}  # slow, or a path: of their own below
OPTIONS = [name for name in PARAMETERS if name.endswith('_options')]
RESERVED = [
    'name', 'kind', 'grid', 'size', 'order', 'seed', 'split', 'root', 'self', 'target', 'times', 'batch', 'layout',
    'params', 'lr', 'betas', 'weight_decay', 'model', 'config', 'patch', 'factor', 'image_channels', 'dataset',
    'spec', 0, None, '', 'a b', '__class__', 'foreach', 'mean', 'std',
]


# --- parts -----------------------------------------------------------------------------------------------------------


def wrong_layout(layout, folder):
    count = math.prod(layout.grid)
    latents = torch.arange(float(2 * count)).view(1, 2, *layout.grid)
    if not torch.allclose(layout.merge(layout.split(latents)), latents, atol=1e-3 * count):
        return 'merge is not the inverse of split'
    if sum(layout.sizes) != layout.n_tokens or min(layout.sizes) < 1:
        return 'sizes'
    again = make_layout(**json.loads(json.dumps(layout.spec)))
    if not torch.equal(again.coords, layout.coords):
        return 'spec gives another layout'


def a_layout(folder, kind='cell', grid=4, **options):
    return make_layout(kind, grid, **options)


def wrong_flow(flow, folder):
    t = flow.times((64,), torch.Generator().manual_seed(0))
    if not t.isfinite().all() or t.min() < 0 or t.max() > 1:
        return f'times from {t.min()} to {t.max()}'
    if t.std() == 0:
        return 'all times are equal'


def wrong_codec(codec, folder):
    images = torch.rand(2, codec.channels // codec.patch**2, 4 * codec.patch, 4 * codec.patch) * 2 - 1
    back = codec.decode(codec.encode(images))
    if not torch.allclose(back, images, atol=1e-3):
        return f'decode is not the inverse of encode: {(back - images).abs().max()}'


def a_network(folder, **given):
    sizes = dict(width=16, depth=(1, 1), heads=2, in_channels=4, num_classes=10, time_channels=16) | given
    config = XARConfig(sizes.pop('width'), sizes.pop('depth'), **sizes)
    with torch.device('meta'):
        XAR(config, make_layout('cell', 4))
    return config


def wrong_network(config, folder, **given):
    torch.manual_seed(0)
    if (
        config.width > 4096
        or sum(config.depth) > 64
        or max(config.num_classes, config.in_channels, config.time_channels) > 10**6
    ):
        return
    model = XAR(config, make_layout('cell', 4))
    out = model(torch.randn(2, 16, config.in_channels), torch.rand(2, 4), torch.zeros(2, dtype=torch.long))
    if out.shape != (2, 16, config.in_channels) or not out.isfinite().all():
        return f'outputs {list(out.shape)}, not all finite'


def a_context(folder, name='random', **options):
    return make_context(name, **options)


def wrong_context(context, folder):
    layout, flow = make_layout('cell', 4), make_flow()
    t = context.sample(3, layout, flow.times)
    if t.shape != (3, len(context.view(layout).entity)) or t.min() < 0 or t.max() > 1:
        return f't {list(t.shape)}'


# --- sampling --------------------------------------------------------------------------------------------------------


def network() -> XAR:
    torch.manual_seed(0)
    model = XAR(PRESETS['fuzzed'], make_layout('cell', 4)).eval()
    torch.nn.init.normal_(model.pred.weight, std=0.1)
    return model


def a_drawing(folder, labels=None, **given):
    labels = torch.tensor([0, 9]) if labels is None else labels
    return generate(
        network(), labels, **dict(steps=2, sampler='euler', generator=torch.Generator().manual_seed(0)) | given
    )


def wrong_drawing(out, folder, **given):
    if out.latents.ndim != 4 or not out.latents.isfinite().all():
        return 'latents are not finite'
    if out.latents.abs().max() > 1e4:
        return f'latents up to {out.latents.abs().max():.3g}'
    usual = a_drawing(folder)
    changes = {'steps': 3, 'guidance': 3.0, 'sampler': 'heun'}
    for name, value in given.items():
        if name in changes and value == changes[name] and torch.equal(out.latents, usual.latents):
            return f'{name} is ignored'
    if isinstance(given.get('known'), (tuple, list)) and (out.latents[:, :, given['known'][1]] != 1).any():
        return 'what is known was not kept'
    if 'steps' in given and isinstance(given['steps'], int) and out.nfe != 4 * given['steps']:
        return f'{out.nfe} evaluations'


def entity_steps(folder, first=5, last=2, entities=4, schedule='linear'):
    return steps_per_entity(first, last, entities, schedule)


def wrong_steps(steps, folder):
    if not all(isinstance(s, int) and s >= 1 for s in steps):
        return steps


def labelled(folder, n=20, num_classes=10, seed=0):
    return balanced_labels(n, num_classes, seed)


def wrong_labels(labels, folder, n=20, num_classes=10, seed=0):
    counts = labels.bincount(minlength=int(num_classes))
    if len(labels) != n or counts.min() != counts.max():
        return counts.tolist()


def to_images(folder, **given):
    options = (
        dict(labels=torch.arange(10), steps=1, sampler='euler', batch_size=4, progress=False, precision='float32')
        | given
    )
    return draw_samples(network(), make_codec('pixels', patch=2), **options)


def wrong_images(result, folder, **given):
    images, cost = result
    if images.dtype != torch.uint8 or images.shape != (10, 1, 8, 8):
        return list(images.shape)
    usual, _ = to_images(folder)
    if not given.keys() & {'seed', 'first', 'precision'} and not torch.equal(usual, images):
        return 'other images than usual'


def shards_of(run, where, **given):
    options = (
        dict(sampling=dict(sampler='euler', steps=1), shard_size=4, batch_size=4, precision='float32', progress=False)
        | given
    )
    return draw_shards(Source(run=str(run)), balanced_labels(10, 10), where / 'shards', **options)


def wrong_shards(result, folder):
    if len(result) != 10 or result.all().shape != (10, 1, 8, 8):
        return result.all().shape


def judged(run, where, **given):
    options = dict(n=20, steps=1, sampler='euler', batch_size=10, progress=False, folder=where / 'evaluation') | given
    return evaluate(str(run), **options)


def wrong_report(report, folder, **given):
    bad = [k for k, v in report.metrics.items() if not math.isfinite(v)] + [
        k for k, v in report.numbers['floors'].items() if not math.isfinite(v['mean']) or not math.isfinite(v['sd'])
    ]
    if bad:
        return f'{bad} not finite'
    samples = np.load(report.folder / 'samples.npz')
    wanted = given.get('n', 20)
    if wanted is not None and len(samples['images']) != wanted:
        return f'{len(samples["images"])} samples'
    if not np.ptp(np.bincount(samples['labels'])) == 0:
        return 'classes are not balanced'


# --- what went wrong once, and more ----------------------------------------------------------------------------------

FEW = [None, True, 0, -1, 2.5, 10**400, math.nan, math.inf, 'abc', '7', [1], {}, {1}, Thing(), 1e308, 2**63]
LAYOUT_CASES = [
    *(
        dict(size=v)
        for v in (0, -1, 3, 2**63, 10**400, '2', 'abc', [2], [2, 2, 2], [0, 1], [math.nan, 1], {}, Thing(), True, 1.0)
    ),
    *(dict(grid=v) for v in (0, -4, 1.5, '4', [4], (4, 4, 4), None, {}, math.nan, 10**400, 2**40, True, Thing())),
    *(dict(kind=v) for v in (None, 3, '', 'cells', ['cell'], {}, Thing(), 'x' * 9999)),
    *(dict(order=v) for v in (None, 3, 'spirals', ['raster'], {}, Thing())),
    *(dict(seed=v, order='random') for v in (-1, 2.5, 'x', None, 10**400, 2**64, math.nan, [1], True)),
    *(
        dict(kind='scale', size=v)
        for v in (
            [], [4], [1, 4], [4, 1], [1, 2, 9, 4], [0, 4], 'abc', 7, [[1, 2], 4], [[1, 2, 3], 4], [None, 4],
            [math.nan, 4], [10**400, 4], list(range(1, 5)), {4},
        )
    ),
    *(dict(kind='haar', size=v) for v in (0, 3, 2, -1, True, 1.5, 'x', [1], 10**400)),
    *(dict(kind='haar', grid=v) for v in (1, 3, (2, 3), (4, 6))), dict(kind='token', size=1),
    dict(kind='image', size=2), dict(kind='token', grid=2000), dict(kind='token', grid=10**6),
    dict(kind='cell', grid=10**6, size=1), dict(kind='antidiagonal', grid=3000),
    *(dict(kind=k, grid=(2, 4, 4)) for k in ('haar', 'scale', 'antidiagonal', 'subsample', 'image')),
    *(dict(grid=(2, 4, 4), size=v) for v in ([1, 2, 2], [3, 2, 2], [2, 2], [1, 2, 0], 2, 4, [[1, 2, 2]])),
    dict(grid=(2, 4, 4), order='spiral'), dict(grid=(64, 64, 65)), dict(grid=(True, 4, 4)),
    dict(kind='scale', resize='bicubic'), dict(kind='scale', resize=None), dict(kind='cell', spec=1),
    dict(kind='cell', self=1), dict(kind='cell', resize='area'), dict(kind='token', **{'a b': 1}),
]
FLOW_CASES = [
    *(dict(mean=v) for v in (math.nan, math.inf, 'x', None, [1], 1e308, 10**400, True, Thing(), 1j)),
    *(dict(std=v) for v in (0, -1, math.nan, math.inf, 'x', None, 1e308, 1e-320, 10**400, [1])),
    *(dict(target=v) for v in (None, 3, 'v', ['x'], {}, Thing())),
    *(dict(times=v) for v in (None, 3, 'gauss', ['uniform'], {}, Thing())),
    *(dict(name=v) for v in (None, 3, '', 'line', ['linear'], {}, Thing())), dict(times='uniform', mean=1.0),
    dict(self=1), dict(shape=3),
]
CODEC_CASES = [
    *(dict(patch=v) for v in (0, -1, 1.5, '2', None, True, 10**400, 2**40, math.nan, [2])),
    *(dict(factor=v) for v in (0, -1.0, math.nan, math.inf, 'x', None, [1], 10**400, True, 1e-320, 1e308)),
    *(dict(image_channels=v) for v in (0, -1, 2.5, 'x', None, True, 2**63, [1])),
    *(dict(name=v) for v in (None, 3, '', 'pixel', ['pixels'], {}, Thing())), dict(self=1), dict(channels=3),
]
NETWORK_CASES = [
    dict([pair])
    for pair in [
        *(('width', v) for v in (0, -16, 17, 16.0, '16', None, True, 10**400, 2**40, 10**9, math.nan, [16])),
        *(
            ('depth', v)
            for v in (
                0, 3, (1,), (0, 0), (1, -1), (1, 1, 1), (1.5, 1), 'ab', None, (10**9, 1), (True, 1), (math.nan, 1),
                [[1], 1],
            )
        ),
        *(('heads', v) for v in (0, 3, 16, -2, 2.0, 'x', None, True, 10**400, math.nan)),
        *(('in_channels', v) for v in (0, -1, 2.5, 'x', None, True, 10**400, 2**50)),
        *(('num_classes', v) for v in (0, -1, 2.5, 'x', None, True, 10**400, 2**50)),
        *(('mlp_ratio', v) for v in (0, -1, 0.01, math.nan, math.inf, 'x', None, 10**400, 1e308, [4], True)),
        *(('time_steps', v) for v in (0, -1, 2.5, 'x', True, 10**400, math.nan, [1])),
        *(('time_scale', v) for v in (0, -1, math.nan, math.inf, 'x', None, 10**400, 1e308, [1])),
        *(('time_channels', v) for v in (0, 1, 3, -2, 2.5, 'x', None, True, 10**400, 2**50)),
        *(('dropout', v) for v in (-0.1, 1, 2, math.nan, 'x', None, [0.1], True, 10**400)),
        *(('attn_dropout', v) for v in (-0.1, 1.0, math.nan, 'x', None)),
        *(('init', v) for v in (None, 3, 'ones', ['zero'], {})),
        *(('block', v) for v in (None, 3, '', 'mamba', ['attention'], {}, Thing())),
        *(('block_options', v) for v in (None, 3, 'x', [], {'heads': 4}, {1: 2}, {'index': 3}, {'self': 1})),
    ]
]
KEPT, MASK = torch.ones(2, 4, 4, 4), torch.arange(16).view(4, 4) < 6
DRAWING_CASES = [
    *(
        dict(steps=v)
        for v in (
            0, -1, 2.5, '3', None, [], [1], [1, 1, 1, 0], [1, 2, 3, 4, 5], [1, 1, 1, 'x'], True, math.nan, 3, {},
            Thing(), 'abcd',
        )
    ),
    *(
        dict(guidance=v)
        for v in (-1.0, math.nan, math.inf, '2', None, [2.0], 3e38, 1e308, 1e30, 10**400, True, 3.0, {}, 1j)
    ),
    *(
        dict(guidance_schedule=v)
        for v in (
            'ramp', 3, None, ['linear'], {}, Thing(), lambda n, entities: math.nan, lambda n: 1,
            lambda n, entities: 'x',
        )
    ),
    *(
        dict(guidance_drops=v, guidance=2.0)
        for v in ('label', ['label'], ['edges'], 3, {}, [3], [['label']], (), [None], 'x', Thing())
    ),
    *(
        dict(labels=v)
        for v in (
            {}, {'label': 3}, {'edges': torch.zeros(2, 1, 4, 4)}, {3: torch.zeros(2)}, {'label': torch.tensor([1, 11])},
            {'label': torch.tensor([1, 2]), 'size': torch.zeros(2)}, [{'label': 1}],
        )
    ),
    *(
        dict(guidance_interval=v)
        for v in (None, 3, (1, 0), (0, 2), (0,), (math.nan, 1), 'ab', ('a', 'b'), {}, (0, 0.5, 1), (10**400, 1))
    ),
    *(
        dict(time_grid=v)
        for v in (
            [1, 0], [1, math.nan, 0], [0, 1], [1], [], [1, 1, 0], [2, 1, 0], [1, 0.5, -1], 'abc', 3, {}, [None, 1],
            lambda steps: [1, 0], lambda: 3, lambda steps: None, lambda steps: ['a'] * (steps + 1), [[1], [0]],
            [10**400, 0],
        )
    ),
    *(dict(sampler=v) for v in (None, 3, '', 'rk4', ['euler'], {}, Thing(), 'heun')),
    *(
        dict(labels=v)
        for v in (
            None, 3, [1, 2], torch.tensor([10, 11]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor(3),
            torch.tensor([]), torch.tensor([[1]]), torch.tensor([True]), 'ab', torch.tensor([], dtype=torch.long),
            torch.tensor([2**40]),
        )
    ),
    *(dict(generator=v) for v in (3, 'x', [], [torch.Generator()], [1, 2], {}, Thing())),
    *(
        dict(randn=v)
        for v in (3, 'x', lambda shape: None, lambda shape: torch.zeros(1), lambda shape: torch.full(shape, math.nan))
    ),
    *(dict(flow=v) for v in (3, 'linear', Thing(), {})), *(dict(trajectory=v) for v in ('yes', 3, [])),
    *(
        dict(known=v)
        for v in (
            3, 'top', (), (1, 2), {}, Thing(), torch.zeros(2, 4, 4, 4), (KEPT, KEPT), (KEPT, None), (KEPT[:1], MASK),
            (KEPT, MASK[:3]), (KEPT, MASK.int()), (KEPT, MASK.expand(3, 4, 4)), (KEPT.long(), MASK),
            (KEPT * math.nan, MASK), (KEPT * math.inf, MASK), (KEPT, ~MASK), (KEPT.double(), MASK), [KEPT, MASK],
        )
    ),
    *(
        dict(order=v)
        for v in (
            3, 'abcd', [], [0, 1, 2], [0, 1, 1, 2], [1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0], [3, 2, 1, 0], [0, 1, 2, 3],
            [None] * 4, [[0, 1, 2, 3]] * 3, [10**400, 0, 1, 2], {}, {0, 1, 2, 3}, Thing(), range(4), [True] * 4,
        )
    ),
    *(dict(progress=v) for v in ('x', [])),
]
JUDGE_CASES = [
    *(
        dict(n=v)
        for v in (0, -10, 1, 4, 10, 15, 20.5, 'abc', '20', True, 10**8, 10**9, 10**400, math.nan, [20], {}, 20)
    ),
    *(dict(steps=v) for v in (0, -1, 1.5, 'x', [1], [], math.nan, {})),
    *(dict(guidance=v) for v in (-1, math.nan, 'x', 3e38, 10**400, [1])),
    *(dict(sampler=v) for v in ('rk4', 3, ['euler'], {})),
    *(dict(guidance_schedule=v) for v in ('ramp', 3, ['linear'], {})),
    *(dict(guidance_drops=v) for v in ('label', ['edges'], 3, [3], {}, ['label'])),
    *(dict(seed=v) for v in (-1, 0.5, 'x', None, 10**400, [1], {}, math.nan, True)),
    *(dict(batch_size=v) for v in (0, -1, 2.5, 'x', None, 10**400, math.nan, True, [1])),
    *(dict(processes=v) for v in (0, -1, 1.5, 'x', None, math.nan, [1])),
    *(dict(device=v) for v in ('gpu', 3, None, 'cuda', ['cpu'])),
    *(dict(resamplings=v) for v in (0, 9, -1, 10.5, 'x', None, math.nan, 10**400, True, [10])),
    *(dict(extractor=v) for v in ('nothing', 3, ['pixels'], {}, '', '../x')),
    *(dict(extractor_weights=v) for v in ('nowhere', 3, '.', [])),
    *(dict(extractor_sha256=v) for v in (3, 'zz', [])),
    *(dict(name=v, folder=None) for v in ('../../../x', 'a/b', '', '.', '..', 3, 'a\0b', [], 'ü' * 300)),
    *(dict(folder=v) for v in (3, '', [], 'a\0b')), *(dict(codec=v) for v in (3, 'pixels')), dict(dataset='digits'),
    dict(dataset=3), dict(flow=3), *(dict(compile=v) for v in ('yes', 3)), dict(progress='x'), dict(unknown=1),
    dict(labels=3),
]
IMAGES_CASES = [
    *(dict(batch_size=v) for v in (0, -1, 2.5, 'x', None, 10**400, math.nan, True, 100)),
    *(dict(seed=v) for v in (None, 'x', -1, 0.5, [1], math.nan, 10**400)),
    *(dict(first=v) for v in (-1, 0.5, 'x', None)), *(dict(precision=v) for v in ('fp16', 16, None, ['bf16'], '')),
    *(dict(labels=v) for v in (torch.tensor([]), [1, 2], None, torch.tensor([11]))),
    *(dict(dataset=v) for v in (3, 'digits')), dict(unknown=1), dict(sampler='rk4'),
]
SHARD_CASES = [
    *(dict(shard_size=v) for v in (0, -1, 2.5, 'x', None, True, math.nan, 10**400, [1])),
    *(dict(seed=v) for v in ('x', None, 0.5, -1, [1], math.nan)),
    *(
        dict(sampling=v)
        for v in (
            None, 3, {}, dict(steps=0), dict(rk=4), dict(sampler='rk4', steps=1), dict(steps=[1]), dict(labels=3),
            {1: 2},
        )
    ),
    *(dict(processes=v) for v in (0, -1, 'x', None)), *(dict(precision=v) for v in ('fp16', 3)),
    *(dict(device=v) for v in ('gpu', 3)),
]


def parts() -> dict:
    "family -> (the maker of a case from its parameters, which are junk, their usual cases)."
    simple = dict(
        layout=(
            a_layout, wrong_layout, LAYOUT_CASES, ['grid', 'layout', 'order', 'options'],
            ['kind', 'grid', 'size', 'order', 'seed'],
        ),
        flow=(
            lambda folder, **options: make_flow(**options), wrong_flow, FLOW_CASES, ['flow', 'time distribution'],
            ['name', 'target', 'times', 'mean', 'std'],
        ),
        codec=(
            lambda folder, name='pixels', **options: make_codec(name, **options), wrong_codec, CODEC_CASES,
            ['codec'], ['name', 'patch', 'factor', 'image_channels'],
        ),
        context=(
            a_context, wrong_context,
            [dict(name=v) for v in (None, 3, '', 'clean ', ['random'], {}, Thing())]
            + [dict(noise=1), dict(self=1), dict(times=3)], ['context'], ['name', 'noise'],
        ),
        steps=(
            entity_steps, wrong_steps,
            [{name: v} for name in ('first', 'last', 'entities', 'schedule') for v in FEW], ['schedule'],
            ['first', 'last', 'entities', 'schedule'],
        ),
        labels=(
            labelled, None, [{name: v} for name in ('n', 'num_classes', 'seed') for v in FEW], [],
            ['n', 'num_classes', 'seed'],
        ),
    )
    return simple


def maker(family, call, wrong, names):
    def make(**given):
        check = wrong or partial(wrong_labels, **given)
        return case(family, call, check, names=names, **given)

    return make


def known(prepared) -> list:
    "Cases one by one."
    found = [training(**{name: v}) for name, v in known_training()]
    for family, (call, wrong, cases, names, _) in parts().items():
        found += [maker(family, call, wrong, names)(**given) for given in cases]
    found += [case('network', a_network, partial(wrong_network, **g), names=['XARConfig'], **g) for g in NETWORK_CASES]
    found += [
        case('generate', a_drawing, partial(wrong_drawing, **g), names=['label', 'interval', 'NaN'], **g)
        for g in DRAWING_CASES
    ]
    found += [
        case('draw_samples', to_images, partial(wrong_images, **g), names=['label', 'argument'], **g)
        for g in IMAGES_CASES
    ]
    found += [
        case(
            'draw_shards', partial(shards_of, prepared.run), wrong_shards, ours=['shards'],
            names=['steps', 'sampler'], **g,
        )
        for g in SHARD_CASES
    ]
    found += [
        case(
            'evaluate', partial(judged, prepared.run), partial(wrong_report, **g), ours=['evaluation'],
            names=['samples', 'argument'], **g,
        )
        for g in JUDGE_CASES
    ]
    found += [
        case('parameters', lambda folder, **g: read_parameters(g, {}), names=['parameter'], **g)
        for g in (dict(lr='x', stepz=3), {'a b': 1}, dict(Steps=1), dict(steps='many'), dict(lr=None), dict(model=None))
    ]
    return found


def known_training():
    for name in OPTIONS:
        yield from ((name, {key: value}) for key in RESERVED for value in (3,))
        yield from ((name, v) for v in (None, 3, 'x', [], {'x': {}}, {1: 2}))
    for name, junk in dict(
        lr=[1e30, 1e308, 1e-320, 10**400, math.nan, 0, '1e-3', True], steps=[10**400, 2.5, '2', True, 0, 10**12],
        batch_size=[10**9, 10**400, 0, True, 5000], seed=[10**400, -1, 2**64, 2.5, True],
        ema=[1, 1.0, -0.1, math.nan, True, 0],
        name=['../x', '', '.', 'a/b', 3, 'a\0b', 'ü' * 300, '<b>x</b>', 'a\nb', '\ud800', '-rf', ' '],
        warmup=[0.9, 1.1, math.nan, 'x'], model=[None, 'xar', 3, ['xar_nano'], {}, Thing()],
        layout=[None, 'cells', 3, ['cell'], {}], context=['noisy', 3, ['random'], {}],
        order=['spirals', None, 3, ['raster'], {}], size=[3, 'x', [1, 2, 3], {}, math.nan, 10**400, True],
        given=[
            3, [], {'label': {'kind': 'map'}}, {'edges': 'map'}, {'edges': {}}, {'edges': {'kind': 'mpa'}}, {1: {}},
            {'edges': {'kind': 'map'}}, {'edges': {'kind': 3}}, {'a b': {'kind': 'map'}}, {'x': {'kind': 'map', 1: 2}},
            {'x': {'kind': 'class', 'config': 3}}, {'x': {'kind': ['map']}},
        ],
        terms=[
            3, [], {'x': {}}, {'x': 3}, {'a b': {}}, {1: {}}, {'x': {'weight': 0}}, {'x': {'kind': 3}},
            {'keys': {'kind': 'x'}}, {'x': {'weight': math.nan}}, {'x': {'config': 1}},
        ],
        block=['mamba', 3, ['attention'], {}], optimizer=['sgd', None, 3, ['adamw'], {}],
        sampler=['rk4', 3, ['euler'], {}],
        guidance=[-1, math.nan, '2', 3e38, 1e308, 10**400], guidance_schedule=['ramp', 3, ['linear'], {}],
        patch=[3, 0, 16, 10**400, 2.5, True, '2'], factor=[math.nan, 0, 1e308, 1e-320, 10**400, 'x', True],
        target=['v', 3, ['x'], {}], times=['gauss', 3, [], {}], time_steps=[-1, 2.5, 10**400, True, 1],
        micro_batch=[0, 3, 10**400, True, 2.5], weight_decay=[math.nan, -1, 1e308, 'x', 10**400],
        clip=[0, math.nan, 1e308, 1e-320, 10**400], beta1=[1, math.nan, True, 1e-320],
        dataset=['mnist', 3, ['digits'], {}], codec=['vq', 3, ['pixels'], {}, 'kl16'],
        recipe=['papers', 3, [], {}, 'paper'], precision=['fp16', 3, None, ['bf16']],
        device=['gpu', 3, None, 'cuda'], label_dropout=[2, -1, math.nan, 'x', True],
        dropout=[1, math.nan, '0', True], save_every=[0, 10**400, True, 2.5], keep=[0, -1, True, 10**400],
        log_every=[0, 10**400, True, 2.5], init_from=['nowhere', 3, '.', '', '/dev/null', []],
        runs_dir=[3, '', [], 'a\0b', '/dev/null/x', '/proc/x'],
        callbacks=[3, {'x': {}}, {'ema': 3}, {1: {}}, {'tensorboard': {'x': 1}}, [], {'name': None}],
        trainable=['(', '*', 3, '', 'nothing', [], {}, True, 'class_emb', '.*', 'a' * 5000, 'a|', '\ud800', r'\d'],
        flip=['yes', 1, []], fsdp=['x', True], bad_images=['x', 3, []], bad_steps=[0, True, 10**400],
        init=['x', 3, []], decay_shape=['x', 3, []], workers=[-1, 'x', 2.5, True],
        plan_tflops=[0, math.nan, 10**400], plan_devices=[0, 10**400], sample_steps=[0, 10**9, True, 2.5],
    ).items():
        yield from ((name, value) for value in junk)


def one_of(make, names):
    return st.builds(lambda name, value: make(**{name: value}), st.sampled_from(names), values)


def strategies(prepared) -> dict:
    "family -> (its weight, what hypothesis draws cases from)."
    trained = [n for n in PARAMETERS if n not in NOT_TRAINED]
    found = dict(training=(4, one_of(training, trained)))
    for family, (call, wrong, _, names, parameters) in parts().items():
        found[family] = 1, one_of(maker(family, call, wrong, names), parameters)

    def of(family, call, wrong, parameters, ours=(), names=()):
        make = lambda **g: case(family, call, partial(wrong, **g), ours, names, **g)
        return one_of(make, parameters)

    found['network'] = 2, of('network', a_network, wrong_network, list(vars(PRESETS['fuzzed'])), names=['XARConfig'])
    found['generate'] = (
        2,
        of(
            'generate', a_drawing, wrong_drawing,
            [
                'steps', 'guidance', 'guidance_schedule', 'guidance_interval', 'time_grid', 'sampler', 'labels',
                'generator', 'randn', 'flow', 'known', 'order',
            ],
            names=['label', 'interval', 'NaN'],
        ),
    )
    found['draw_samples'] = (
        1,
        of(
            'draw_samples', to_images, wrong_images, ['batch_size', 'seed', 'first', 'precision', 'labels'],
            names=['label'],
        ),
    )
    found['evaluate'] = (
        2,
        of(
            'evaluate', partial(judged, prepared.run), wrong_report,
            [
                'n', 'seed', 'batch_size', 'steps', 'guidance', 'sampler', 'guidance_schedule', 'resamplings',
                'extractor', 'device', 'processes',
            ],
            ours=['evaluation'], names=['samples'],
        ),
    )
    return found
