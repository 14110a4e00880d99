import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
LONGEST = ['test_scale_out', 'test_published_scale', 'test_browser', 'test_evaluate_and_generate']     # start first


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def papermill(notebook, output, **parameters):
    "Execute a run notebook."
    command = [BIN / 'papermill', ROOT / 'nbs' / f'{notebook}.ipynb', output, '--no-progress-bar']
    for name, value in parameters.items():
        command += ['-y', f'{name}: {json.dumps(value)}'] if isinstance(value, (dict, list)) else ['-p', name,
            str(value)]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def refused(notebook, **parameters):
    "What a run notebook says to bad input: its cells with these parameters, in this process, which saves the imports."
    from execnb.shell import CaptureShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    filled = parameterize_notebook(load_notebook_node(str(ROOT / 'nbs' / f'{notebook}.ipynb')), parameters)
    shell, before = CaptureShell(), Path.cwd()
    try:
        os.chdir(ROOT)
        for cell in filled.cells:
            if cell.cell_type != 'code': continue
            shell.run(cell.source)
            if shell.exc: return f'{type(shell.exc).__name__}: {shell.exc}'
    finally: os.chdir(before)
    raise AssertionError(f'{notebook} took {parameters}')


def printed(notebook):
    "What the cells of an executed notebook printed."
    return [''.join(o['text']) for c in json.loads(notebook.read_text())['cells'] for o in c.get('outputs', [])
            if o['output_type'] == 'stream']


def fill(path):
    "A file that takes all that is left on its disk."
    with contextlib.suppress(OSError), path.open('ab', buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)): pass


def golden_network(path):
    "The network of data/xar_golden.npz as a file in the authors' format; returns what was computed with it, and meta."
    import numpy as np
    import torch
    stored = np.load(ROOT / 'data' / 'xar_golden.npz')
    meta = json.loads(str(stored['meta']))
    values = {k: torch.from_numpy(stored[k]) for k in stored.files if k != 'meta'}
    weights = {k.removeprefix('weights/'): v for k, v in values.items() if k.startswith('weights/')}
    heads = {'encoder_blocks.0.attn.rope.freqs_cos': torch.zeros(256, meta['dim'] // meta['heads'])}   # read off it
    torch.save({'model_ema': weights | heads}, path)
    return values, meta


def random_inception(path):
    "A weights file of Inception's names and shapes, filled at random: the real one cannot be downloaded in a test."
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception
    original, torch_load = Inception.load_state_dict, torch.load
    try:          # only to make a state dict of the right shapes without a download
        Inception.load_state_dict, torch.load = lambda self, state: None, lambda *args, **kwargs: {}
        torch.manual_seed(0)
        network = Inception('inception-v3-compat', ['2048'], feature_extractor_weights_path='none')
    finally: Inception.load_state_dict, torch.load = original, torch_load
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # one batch decides its statistics; without them all images would look alike to it
    for norm in norms: norm.momentum = None
    with torch.no_grad(): network.train()(torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8))
    torch.save(network.state_dict(), path)


@pytest.fixture
def need():
    "need(condition, why): skip without it; with XAR_LAB_NO_SKIP set (continuous integration) fail instead."
    def need(condition, why):
        if condition: return
        if os.environ.get('XAR_LAB_NO_SKIP'): pytest.fail(why)
        pytest.skip(why)
    return need


@pytest.fixture(scope='session')
def little_run(tmp_path_factory):
    "A run of a few steps on digits: enough for what goes on from a run."
    from xar_lab.training import TrainConfig, train
    return train(TrainConfig(name='little', runs_dir=str(tmp_path_factory.mktemp('runs')), steps=30, batch_size=32,
                             sampler='euler', sample_steps=2, compile=False))
