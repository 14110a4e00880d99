"Slow: the authors' file layouts at full size, filled at random, and the whole of Inception's path on 200 images."
import dataclasses
import json
import shlex
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import BIN, ROOT, papermill, printed, random_inception

pytestmark = pytest.mark.slow


def authors_file(path, preset='xar_b'):
    """A file of the authors' layout for a preset, 256×256:
    every name and shape, random weights, mask and rotary tables as theirs."""
    from xar_lab.entities import make_layout
    from xar_lab.model import PRESETS, XAR
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS[preset], init='published', time_steps=1000)
    state = XAR(config, make_layout('cell', 16)).state_dict()
    mask = torch.where(torch.kron(torch.ones(4, 4).tril(), torch.ones(64, 64)) == 1, 0., -torch.inf)[None, None]
    for stack, depth in zip(('encoder', 'decoder'), config.depth):
        for i in range(depth):
            for kind in ('cos', 'sin'):
                state[f'{stack}_blocks.{i}.attn.rope.freqs_{kind}'] = torch.zeros(256, config.width // config.heads)
    torch.save(state | {'mask': mask}, path)


def kl16_file(path):
    "MAR's layout at full size, random weights of the scale that keeps activations finite."
    with np.load(ROOT / 'data' / 'kl16_golden.npz') as reference: shapes = json.loads(str(reference['shapes']))
    g = torch.Generator().manual_seed(0)
    def fill(name, shape):
        return torch.ones(shape) if len(shape) == 1 and 'norm' in name and name.endswith('weight') else torch.randn(
            shape, generator=g) / max(1, np.prod(shape[1:])) ** .5
    torch.save({'model': {name: fill(name, shape) for name, shape in shapes.items()}}, path)


def test_authors_files_from_weights_to_images(tmp_path):
    from xar_lab.checkpoints import load_kl16, load_published
    from xar_lab.data import to_uint8
    from xar_lab.samples import Source
    from xar_lab.sampling import generate
    authors_file(tmp_path / 'xar_b.pth'); kl16_file(tmp_path / 'kl16.ckpt')
    times, started = {}, time.perf_counter()
    def stage(name):
        nonlocal started
        times[name], started = time.perf_counter() - started, time.perf_counter()
    model = load_published(tmp_path / 'xar_b.pth', 'xar_b'); stage('load xar_b')
    codec = load_kl16(tmp_path / 'kl16.ckpt'); stage('load kl16')
    out = generate(model, torch.tensor([207, 360]), steps=4, guidance=2.7, generator=torch.Generator().manual_seed(0))
    stage('sample 2 images, 4 steps, guidance 2.7')
    images = to_uint8(codec.decode(out.latents)); stage('decode 2 images')
    codec.encode(images.float() / 127.5 - 1); stage('encode 2 images')
    print({k: f'{v:.1f} s' for k, v in times.items()})
    assert sum(p.numel() for p in model.parameters()) == 172_638_224
    assert out.latents.shape == (2, 16, 16, 16) and out.latents.isfinite().all() and images.shape == (2, 3, 256, 256)

    done = papermill('generate', tmp_path / 'out.ipynb', weights=tmp_path / 'xar_b.pth',
                     codec_options={'path': str(tmp_path / 'kl16.ckpt')}, classes='207', count=1, steps=2,
                     folder=tmp_path / 'g')
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'g').glob('*.png'))) == 1
    source = Source(weights=str(tmp_path / 'xar_b.pth'),
                    codec=(('name', 'kl16'), ('path', str(tmp_path / 'kl16.ckpt'))))
    config = source.config(model)
    # as published
    assert (config.model, config.sampler, config.sample_steps, config.guidance, config.guidance_schedule) == ('xar_b',
        'sde', 40, 2.7, 'linear')


def test_inception_on_200_images_is_torch_fidelitys(tmp_path):
    "Random weights in the place of Inception's, so the numbers mean nothing; but they are torch-fidelity's own."
    from xar_lab.data import load_dataset
    from xar_lab.features import real_images
    from xar_lab.sample_files import save_images
    from xar_lab.shards import sha256
    from xar_lab.training import TrainConfig, train
    weights = tmp_path / 'random-inception.pth'
    random_inception(weights)
    run = train(TrainConfig(name='short', runs_dir=str(tmp_path / 'runs'), steps=100, batch_size=32, sample_steps=4))
    images, _ = real_images(load_dataset('digits', 'test'))
    save_images(images[:200], tmp_path / 'real')
    done = papermill('evaluate', tmp_path / 'out.ipynb', run=run, folder=tmp_path / 'e', reference=tmp_path / 'real',
                     n=200, png=True, extractor_weights=weights,
                     extractor_sha256=sha256(weights)[:12], shard_size=100, batch_size=50)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / 'e' / 'report.json').read_text())
    assert report['extractor']['official'] is False and 'fd_unofficial_inception' in report[
        'metrics'] and 'fid' not in report['metrics']
    [command] = [line for text in printed(tmp_path / 'out.ipynb') for line in text.splitlines()
                 if line.startswith('xar-fidelity')]
    theirs = subprocess.run([BIN / 'xar-fidelity', *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert theirs.returncode == 0, theirs.stderr[-3000:]
    theirs, ours = json.loads(theirs.stdout), report['metrics']
    pairs = dict(frechet_inception_distance='fd_unofficial_inception',
                 kernel_inception_distance_mean='kid_unofficial_inception', kernel_inception_distance_std='kid_sd',
                 precision='precision', recall='recall', inception_score_mean='is_unofficial_inception')
    # the random network tells images apart
    assert theirs['frechet_inception_distance'] > .1 and theirs['inception_score_mean'] > 1.001
    print({name: (theirs[key], ours[name]) for key, name in pairs.items()})
    for key, name in pairs.items(): assert theirs[key] == pytest.approx(ours[name], rel=1e-5, abs=1e-12), name
