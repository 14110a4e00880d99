"What only a GPU can show: `make test-gpu`. Not among the other tests; without a GPU each of these fails."
import json
import time

import numpy as np
import pytest
import torch
from conftest import golden_network
from torch._dynamo.utils import counters

from xar_lab.blocks import PRESETS, XARConfig
from xar_lab.checkpoints import load_published
from xar_lab.core import pick_precision
from xar_lab.entities import make_layout
from xar_lab.flow import make_flow
from xar_lab.model import XAR
from xar_lab.sampling import generate
from xar_lab.state import load_run
from xar_lab.training import TrainConfig, train

GPU, CPU = torch.device('cuda'), torch.device('cpu')
pytestmark = pytest.mark.gpu


@pytest.fixture(scope='module', autouse=True)
def there_is_one():
    if not torch.cuda.is_available(): pytest.fail('these tests need a GPU')
    print(torch.cuda.get_device_name(), 'torch', torch.__version__)


def rows(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def config(folder, name, device, **more):
    sizes = dict(steps=20, batch_size=32, log_every=1, save_every=10, sample_every=20, sample_steps=2,
                 precision='float32', compile=False)
    return TrainConfig(**sizes | dict(name=name, runs_dir=str(folder), device=device.type) | more)


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    path = tmp_path_factory.mktemp('golden') / 'published.pth'
    values, meta = golden_network(path)
    return load_published(path).to(GPU), values, meta


def test_velocity_of_the_published_implementation(published):
    model, values, _ = published
    t = values['train_t']
    x = make_flow().mix(model.layout.split(values['train_latents']), values['train_noise'].flatten(1, 2),
                        t.repeat_interleave(64, 1)[..., None])
    with torch.no_grad(): v = model(x.to(GPU), t.to(GPU), values['train_labels'].to(GPU))
    apart = (v.cpu().view(-1, 4, 64, 16) - values['train_velocity']).abs().max().item()
    print(f'velocity: largest difference {apart:.1e}')
    assert apart < 1e-4


@pytest.mark.parametrize('name, sampler', [('euler', 'euler'), ('euler_maruyama', 'sde')])
def test_images_of_the_published_implementation(published, name, sampler):
    model, values, meta = published
    start, each = values[f'{name}_init_noise'], values.get(f'{name}_step_noise')
    queue = iter([z for n in range(4) for z in [start[n], *(each[n] if each is not None else [])]])
    out = generate(model, values['sample_labels'].to(GPU), sampler=sampler, steps=meta['steps'],
                   guidance=meta['cfg'], randn=lambda shape: next(queue))
    assert next(queue, None) is None
    apart = (out.latents.cpu() - values[f'{name}_latents']).abs().max().item()
    print(f'{sampler}: largest difference {apart:.1e}')
    assert apart < 2e-4


KINDS = ['cell', 'token', 'subsample', 'scale', 'image', 'antidiagonal', 'haar']

def little(kind):
    "A small network with weights that are not zero, and where its tokens are."
    torch.manual_seed(0)
    layout = make_layout(kind, (4, 4))
    model = XAR(XARConfig(64, (2, 2), heads=4, in_channels=4, num_classes=10), layout).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=.1) if p.ndim > 1 else None
    return model


@pytest.mark.parametrize('kind', KINDS)
def test_both_devices_draw_the_same(kind):
    "Caches, views and guidance: the same noise gives the same latents."
    model, labels, drawn = little(kind), torch.tensor([1, 7, 3]), []
    for device in (CPU, GPU):
        noise = torch.Generator().manual_seed(1)
        out = generate(model.to(device), labels.to(device), steps=4, guidance=2.,
                       randn=lambda shape, of=noise: torch.randn(shape, generator=of, dtype=torch.float64))
        drawn.append(out.latents.cpu())
    apart = ((drawn[0] - drawn[1]).abs().max() / drawn[0].abs().max()).item()
    print(f'{kind}: {apart:.1e}')
    assert apart < 1e-3


@pytest.mark.parametrize('more', [{}, dict(recipe='mar'), dict(optimizer='muon'), dict(flow='mean', context='random')],
                         ids=['xar', 'mar', 'muon', 'mean'])
def test_both_devices_learn_the_same(tmp_path, more):
    "The noise is drawn on the CPU, so that the first losses are equal; the mean flow derives forward."
    here, there = (rows(train(config(tmp_path, d.type, d, **more))) for d in (CPU, GPU))
    for a, b in zip(here[:5], there[:5]): assert a['loss'] == pytest.approx(b['loss'], rel=2e-3)
    assert here[-1]['loss'] == pytest.approx(there[-1]['loss'], rel=.05)
    assert there[-1]['memory_gib'] > 0


def test_a_run_goes_on(tmp_path):
    whole = train(config(tmp_path, 'whole', GPU, dropout=.1))
    broken = config(tmp_path, 'broken', GPU, dropout=.1)
    train(broken, follow=lambda row: row['step'] >= 9)
    assert rows(tmp_path / 'broken')[-1]['step'] < 20
    a, b = rows(whole), rows(train(broken))
    assert [row['step'] for row in b] == [row['step'] for row in a]
    assert b[-1]['loss'] == pytest.approx(a[-1]['loss'], rel=1e-3)
    first, second = (load_run(folder)[0].state_dict() for folder in (whole, tmp_path / 'broken'))
    apart = max((first[k] - second[k]).abs().max().item() for k in first)
    print(f'weights of the whole and of the resumed run: {apart:.1e}')
    assert apart < 1e-4


def test_auto_is_bf16_and_learns(tmp_path):
    assert pick_precision('auto', GPU) == 'bf16'
    run = train(config(tmp_path, 'bf16', GPU, precision='auto', steps=200, batch_size=64, lr=3e-3))
    of = rows(run)
    assert json.loads((run / 'config.json').read_text())['precision'] == 'bf16'
    first, last = (np.mean([row['loss'] for row in part]) for part in (of[:10], of[-10:]))
    print(f'loss {first:.3f} -> {last:.3f}, {of[-1]["steps_per_s"]:.0f} steps/s')
    assert last < .6 * first


@pytest.mark.parametrize('switch', ['compile', 'activation_checkpointing', 'tf32'])
def test_switches_change_nothing_but_speed(tmp_path, switch):
    torch._dynamo.reset(); counters.clear()
    at_work = []
    def look(row): at_work.append((torch.get_float32_matmul_precision(), len(counters['frames'])))
    plain = rows(train(config(tmp_path, 'plain', GPU, steps=8), follow=look))
    other = rows(train(config(tmp_path, switch, GPU, steps=8, **{switch: True}), follow=look))
    assert at_work[0] == ('highest', 0) and torch.get_float32_matmul_precision() == 'highest'
    assert at_work[-1][0] == ('high' if switch == 'tf32' else 'highest')
    assert (at_work[-1][1] > 0) == (switch == 'compile')
    assert len(plain) == 8
    for a, b in zip(plain, other, strict=True): assert a['loss'] == pytest.approx(b['loss'], rel=5e-3)


@pytest.mark.parametrize('preset', ['xar_b', 'xar_l'])
def test_published_size(preset):
    "Training steps of 64 images in bf16, and drawing 32 images; what they take is printed."
    torch.manual_seed(0); torch.cuda.reset_peak_memory_stats()
    with GPU: model = XAR(PRESETS[preset], make_layout('cell', (16, 16)))
    optimizer, flow = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), make_flow()
    x, noise = torch.randn(2, 64, 256, 16, device=GPU)
    t, labels = torch.rand(64, 4, device=GPU), torch.arange(64, device=GPU)
    each = t.repeat_interleave(64, 1)[..., None]
    losses, seconds = [], []
    for _ in range(6):
        torch.cuda.synchronize(); start = time.perf_counter()
        with torch.autocast('cuda', torch.bfloat16): said = model(flow.mix(x, noise, each), t, labels)
        loss = flow.loss(said.float(), x, noise, each).mean()
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        torch.cuda.synchronize(); seconds.append(time.perf_counter() - start); losses.append(loss.item())
    assert losses[-1] < losses[0] < 10
    memory = torch.cuda.max_memory_allocated() / 2 ** 30
    flops = 6 * 64 * 256 * sum(p.numel() for block in model.blocks for p in block.parameters() if p.ndim > 1)
    print(f'{preset}: {min(seconds):.3f} s a step of 64 images, {flops / min(seconds) / 1e12:.0f} TFLOP/s in the '
          f'products of the blocks, {memory:.1f} GiB')
    del optimizer; model.eval()
    start = time.perf_counter()
    with torch.autocast('cuda', torch.bfloat16):
        out = generate(model, labels[:32], steps=10, guidance=2.3, generator=torch.Generator().manual_seed(0))
    assert out.latents.isfinite().all()
    print(f'{preset}: {(time.perf_counter() - start) / 32:.3f} s an image in {out.nfe} evaluations')
