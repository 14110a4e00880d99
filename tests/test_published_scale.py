"The published scale, small: folder, latent cache, training, FID protocol; killed twice on the way. And file formats."
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, papermill, refused
from PIL import Image

COUNT = 1_050                   # images, of which some are broken


def killed(code, finished, enough):
    """Run Python code, kill it as soon as there are enough finished pieces, and see that its workers end with it (also
    where interrupts are ignored, as in a shell's background)."""
    process = subprocess.Popen([sys.executable, '-c', f"if __name__ == '__main__':\n    {code}"], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    while len(finished()) < enough:
        assert process.poll() is None, process.stderr.read()
        time.sleep(.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    left = len(finished())
    time.sleep(1)
    assert len(finished()) == left, 'a worker goes on alone'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "1,050 real images as PNG in class folders, twelve of them broken, and a small autoencoder trained on some."
    from xar_lab.autoencoder import fit_autoencoder, save_autoencoder
    from xar_lab.data import load_dataset
    here = tmp_path_factory.mktemp('scale')
    data = load_dataset('fashion_mnist')
    for i in range(COUNT):
        path = here / 'images' / data.class_names[int(data.labels[i])].replace(' ', '_') / f'{i:05d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i, 0].numpy()).save(path)
    files = sorted((here / 'images').rglob('*.png'))
    for path in files[50::90]: path.write_bytes(path.read_bytes()[:120])            # cut short
    files[7].write_bytes(b''); files[1000].write_text('no image')
    network = fit_autoencoder(data.images[:2000], padding=2, latent_channels=4, widths=[16, 32, 32], steps=30,
                              batch_size=16, progress=False)
    save_autoencoder(network, here / 'autoencoder', data.images[:500], padding=2)
    return here


def cached(place, name='cache'): return [p for p in (place / name).glob('shard-*.json')]


def cache_code(place, name):
    return ("from functools import partial; from xar_lab.cache import cache_latents; from xar_lab.folders import "
            "ImageFolder; from xar_lab.latents import diffusers_codec; "
            f"spec = dict(name='diffusers', folder={str(place / 'autoencoder')!r}); source = dict(name='folder', "
            f"root={str(place / 'images')!r}, size=None, channels=1, padding=2); "
            "cache_latents(partial(ImageFolder, source['root'], size=None, channels=1, padding=2), "
            f"partial(diffusers_codec, folder=spec['folder']), {str(place / name)!r}, codec_spec=spec, source=source, "
            "shard_size=50, processes=2, threads=2)")


@pytest.fixture(scope='module')
def cache(place):
    "The cache, made by two processes, killed on the way, finished by the run notebook."
    killed(cache_code(place, 'cache'), lambda: cached(place), 3)
    before = {p.name: p.stat().st_mtime_ns for p in cached(place)}
    assert 3 <= len(before) < 21 and not (place / 'cache' / 'manifest.json').exists()
    done = papermill('cache_latents', place / 'cache.ipynb', images=place / 'images', size='None', channels=1,
                     dataset_options={'padding': 2}, codec='diffusers',
                     codec_options={'folder': str(place / 'autoencoder')}, cache=place / "cache", shard_size=50,
                     processes=2, threads=2)
    assert done.returncode == 0, done.stderr[-3000:]
    after = {p.name: p.stat().st_mtime_ns for p in cached(place)}
    # finished shards were left alone
    assert len(after) == 21 and all(after[name] == stamp for name, stamp in before.items())
    return place / 'cache'


@pytest.mark.slow
def test_a_killed_cache_is_finished_and_whole(place, cache):
    from xar_lab.cache import CachedLatents, verify_cache
    manifest = CachedLatents(cache).manifest
    assert manifest['images'] == COUNT - 14 and len(manifest['broken']) == 14 and verify_cache(cache,
        progress=False) == []
    assert not [p for p in cache.iterdir() if p.name.startswith('.')]
    process = subprocess.run([sys.executable, '-c', f"if __name__ == '__main__':\n    {cache_code(place, 'whole')}"],
                             cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    # the same bytes as without the kill
    assert json.loads((place / 'whole' / 'manifest.json').read_text())['shards'] == manifest['shards']
    assert .9 < manifest['measured']['sd_normalised'] < 1.1


@pytest.fixture(scope='module')
def run(cache, place):
    done = papermill('train', place / 'train.ipynb', dataset='latents', dataset_options={'root': str(cache)}, flip=True,
                     steps=30, batch_size=32, sample_steps=4, log_every=10,
                     name='latents', runs_dir=place / 'runs')
    assert done.returncode == 0, done.stderr[-3000:]
    return place / 'runs' / 'latents'


@pytest.mark.slow
def test_a_run_on_cached_latents(run, cache, place):
    saved = json.loads((run / 'config.json').read_text())
    # the cache's own, for sampling
    assert saved['codec']['name'] == 'diffusers' and saved['codec']['folder'] == str(place / 'autoencoder')
    rows = [json.loads(l) for l in (run / 'metrics.jsonl').read_text().splitlines()]
    assert rows[-1]['loss'] < rows[0]['loss']
    said = (place / 'train.ipynb').read_text()
    # the folder has no val
    assert 'not compared with real images: no held-out images in' in said and 'image/png' in said and not (run
        / 'eval').exists()


@pytest.mark.slow
def test_a_killed_evaluation_gives_the_same_report(run, place):
    from xar_lab.data import load_dataset
    from xar_lab.evaluation import find_features
    from xar_lab.features import register_extractors
    from xar_lab.fid50k import fid50k, statistics_of
    from xar_lab.samples import Source, as_array
    register_extractors()
    images = load_dataset('fashion_mnist', 'test').images[:1000]
    np.savez(place / 'images.npz', arr_0=as_array(images))
    np.savez(place / 'statistics.npz', **statistics_of(find_features(images, 'fashion_mnist_cnn')))
    options = dict(reference=place / 'statistics.npz', reference_images=place / 'images.npz', n=100,
                   extractor='fashion_mnist_cnn', shard_size=10, batch_size=10, processes=2)
    fid50k(Source(run=str(run)), place / 'whole_eval', **options, progress=False)

    shards = lambda kind: list((place / 'broken_eval' / 'shards').glob(f'{kind}-*'))
    texts = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    code = (f"from xar_lab.fid50k import fid50k; from xar_lab.samples import Source; fid50k(Source(run={str(run)!r}), "
            f"{str(place / 'broken_eval')!r}, **{texts!r})")
    killed(code, lambda: shards('shard'), 4)
    there = {p.name: p.stat().st_mtime_ns for p in shards('shard') if p.suffix == '.json'}
    assert 1 <= len(there) < 10
    done = papermill('evaluate', place / 'resumed.ipynb', run=run, folder=place / 'broken_eval', **options)
    assert done.returncode == 0, done.stderr[-3000:]
    # drawn once
    assert all((place / 'broken_eval' / 'shards' / name).stat().st_mtime_ns == stamp for name, stamp in there.items())
    whole, resumed = (json.loads((place / name / 'report.json').read_text()) for name in ('whole_eval', 'broken_eval'))
    timing = whole.pop('timing'), resumed.pop('timing')
    assert whole == resumed and all(t['sampling'] > 0 for t in timing)
    assert 'fd_fashion_mnist_cnn' in whole['metrics'] and whole['reference']['official'] is False


@pytest.mark.slow
def test_starting_from_a_run(run, place):
    done = papermill('train', place / 'tuned.ipynb', init_from=run, dataset='digits', codec='diffusers',
                     codec_options={'folder': str(place / 'autoencoder')},
                     layout='token', steps=2, batch_size=8, sample_steps=1, name='tuned', runs_dir=place / 'runs',
                     eval_samples=100)
    assert done.returncode == 0, done.stderr[-3000:]
    started = json.loads((place / 'runs' / 'tuned' / 'config.json').read_text())['started']
    # digits are no clothes, though ten, too
    assert started['blocks, norms and time'] == 'kept' and started['positions'] != 'kept' and started[
        'classes'].startswith('new')


@pytest.mark.parametrize('notebook, parameters, message', [
    ('cache_latents', dict(images='{place}/images', dataset='digits'),
     'give images (a folder) or dataset (a name), one of them'),
    ('cache_latents', dict(dataset='digits', codec='pixels', cache='{place}/x'),
     "codec 'pixels' has no posterior to cache"),
    ('evaluate', dict(weights='x.pth'), 'say what to compare with'),
])
def test_bad_input_ends_at_once(tmp_path, notebook, parameters, message):
    fill = lambda v: {k: fill(x) for k, x in v.items()} if isinstance(v, dict) else v.format(place=tmp_path)
    assert message in refused(notebook, **{k: fill(v) for k, v in parameters.items()})
