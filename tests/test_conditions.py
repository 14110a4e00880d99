"More than a class, from the outside: a data set and a condition in a module, trained, drawn and judged by papermill."
import json
import os

import numpy as np
import pytest
import torch
from conftest import ROOT, papermill, refused
from PIL import Image

CHOICES = '''
import torch
from torch import nn
from xar_lab.conditions import Hints, register_condition
from xar_lab.data import load_dataset, register_dataset

class Sketched(torch.utils.data.Dataset):
    num_classes, class_names, levels = 10, list('0123456789'), 17
    def __init__(self, split='train'): self.of = load_dataset('digits', split); self.labels = self.of.labels
    def __len__(self): return len(self.of)
    def __getitem__(self, i):
        image, label = self.of[i]
        return image, dict(label=label, sketch=(image > 0) * 2. - 1, ink=image.mean(), words=image[0, :3])

class Ink(nn.Module):
    "A number for the whole image; 0 stands for none."
    def __init__(self, config, layout): super().__init__(); self.read = nn.Linear(1, config.width)
    def forward(self, given): return Hints(self.read(given[:, None].to(self.read.weight.dtype)))
    def null(self, hints): return self(torch.zeros(len(hints), device=self.read.weight.device))

register_dataset('sketched', Sketched)
register_condition('ink', Ink)
'''
GIVEN = dict(sketch=dict(kind='map'), ink=dict(kind='ink'), words=dict(kind='prefix'))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('choices')
    (folder / 'sketch_choices.py').write_text(CHOICES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join(map(str, (ROOT, folder))))
        yield folder


@pytest.fixture(scope='module')
def run(place):
    done = papermill('train', place / 'out.ipynb', runs_dir=place, name='sketched', dataset='sketched', given=GIVEN,
                     uses=['sketch_choices'], patch=2, steps=4, batch_size=16, sample_steps=2, eval_samples=20,
                     flip=True, live=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return place / 'sketched'


def test_grids_and_reports_show_what_was_given(run):
    with Image.open(run / 'samples' / 'step_00000004.png') as grid: shown = np.asarray(grid)[18:]
    assert shown.shape[0] == 8 * 66 + 2                              # four rows of samples, each under a row of maps
    assert set(np.unique(shown[2:66])) <= {0, 128, 255}              # sketches: black and white, grey between
    report = json.loads((run / 'eval' / 'default' / 'report.json').read_text())
    assert report['given'] == 'sketch, ink, words of held-out items'
    with Image.open(run / 'eval' / 'default' / 'grid.png') as grid: assert set(np.unique(np.asarray(grid)[20:84])) <= {
        0, 128, 255}


@pytest.mark.slow
def test_two_processes_draw_for_the_same_items(run, place):
    numbers = [0, 1]
    for processes in (1, 2):
        done = papermill('evaluate', place / 'out.ipynb', run=run, n=20, name=f'by{processes}', processes=processes,
                         batch_size=10, guidance=2., guidance_drops=['label'], uses=['sketch_choices'])
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(run / 'eval' / f'by{processes}' / 'samples.npz') as found:
            numbers[processes - 1] = found['images'].astype(int)
    assert np.abs(numbers[0] - numbers[1]).max() <= 16               # one level of 17: rounding


def test_generate_draws_for_held_out_items(run, place):
    done = papermill('generate', place / 'out.ipynb', run=run, classes='3,8', count=2, uses=['sketch_choices'])
    assert done.returncode == 0, done.stderr[-3000:]
    with Image.open(run / 'generated' / 'grid' / 'grid.png') as grid: assert set(np.unique(np.asarray(grid)[2:66])) <= {
        0, 128, 255}
    with Image.open(run / 'generated' / 'grid' / 'trajectory.gif') as film: assert film.width > 3 * film.height


def test_what_cannot_be_given_is_one_line(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    for values, said in ((dict(given=dict(edges=dict(kind='map'))), "gives no 'edges' with its images, only label"),
                         (dict(given=dict(sketch=dict(kind='mop'))), "unknown condition 'mop'; known: "),
                         (dict(given=dict(sketch=dict(kind='map', depths=9))), 'depths must be a whole number from 1')):
        last = refused('train', runs_dir=str(place), name='bad', dataset='sketched', live=False,
                       uses=['sketch_choices'], **values)
        assert last.startswith('ValueError: ') and said in last and '\n' not in last
    assert not (place / 'bad').exists()


def test_a_run_without_conditions_starts_one_with_them(run, place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    from xar_lab.build import build
    from xar_lab.config import TrainConfig
    from xar_lab.training import train
    plain = train(TrainConfig(name='plain', runs_dir=str(place), steps=2, batch_size=8, sample_steps=1))
    parts = build(TrainConfig(dataset='sketched', uses=['sketch_choices'], given=GIVEN, patch=2, init_from=str(plain)))
    assert [parts.started[f'condition {name}'] for name in GIVEN] == ['new'] * 3
    assert parts.started['blocks, norms and time'] == 'kept'
    x, t = torch.randn(2, 16, 4), torch.rand(2, 4)
    assert torch.isfinite(parts.model(x, t, torch.tensor([1, 10]))).all()
