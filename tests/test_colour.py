"A folder of colour images of somebody's own, from end to end: train, evaluate, generate, film."
import json

import numpy as np
import pytest
from conftest import papermill
from PIL import Image

from xar_lab.evaluation import evaluate

CLASSES = ('blue', 'green', 'red')                       # the bright channel of class k is 2 − k


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "Squares in three colours, 16×16, as PNG in class folders, train and val."
    root, random = tmp_path_factory.mktemp('colour') / 'images', np.random.default_rng(0)
    for split, count in dict(train=40, val=20).items():
        for k, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image, (x, y) = np.zeros((16, 16, 3), np.uint8), random.integers(2, 9, 2)
                image[y:y + 6, x:x + 6, 2 - k] = random.integers(120, 255)
                Image.fromarray(image).save(root / split / name / f'{i}.png')
    return root


@pytest.mark.slow
def test_colour_from_folder_to_film(images, tmp_path):
    done = papermill('train', tmp_path / 'train.ipynb', dataset='folder', dataset_options=dict(root=str(images)),
                     patch=4, steps=80, lr=3e-3, sample_steps=8, eval_samples=30, name='colour', runs_dir=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / 'colour'
    report = json.loads((run / 'eval' / 'default' / 'report.json').read_text())
    assert report['metrics']['fd_pixels'] > 0 and report['floors']['fd_pixels']['mean'] > 0
    samples = np.load(run / 'eval' / 'default' / 'samples.npz')
    assert samples['images'].shape == (30, 16, 16, 3)
    for k in range(3):                                    # each class in its own colour
        mean = samples['images'][samples['labels'] == k].mean((0, 1, 2))
        assert mean.argmax() == 2 - k, (CLASSES[k], mean)
    film = Image.open(run / 'eval' / 'default' / 'trajectory.gif')
    assert film.n_frames > 8 and len(np.unique(np.array(film.convert('RGB')).reshape(-1, 3), axis=0)) > 2

    done = papermill('generate', tmp_path / 'generate.ipynb', run=run, classes='red', count=2, folder=tmp_path / 'out')
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = sorted((tmp_path / 'out').glob('0*.png'))
    assert len(drawn) == 2 and all(np.array(Image.open(path)).shape == (16, 16, 3) for path in drawn)
    assert np.array(Image.open(drawn[0])).mean((0, 1)).argmax() == 0

    (images / 'val' / 'red').rename(images / 'val' / 'pink')                  # labels are numbers: names are compared
    with pytest.raises(ValueError, match='have other classes: without red, besides pink'):
        evaluate(run, n=30, name='pink', progress=False)
    assert not (run / 'eval' / 'pink').exists()
