"Fashion-MNIST, where it is installed."
import json

import numpy as np
import torch

from xar_lab.data import SYSTEM_FOLDERS, load_dataset
from xar_lab.evaluation import evaluate
from xar_lab.training import TrainConfig, train


def test_the_data_set(need):
    need(any(f.is_dir() for f in SYSTEM_FOLDERS), 'Fashion-MNIST is not installed: apt install dataset-fashion-mnist')
    for split, n in (('train', 60_000), ('test', 10_000)):
        data = load_dataset('fashion_mnist', split)
        assert len(data) == n and data.labels.bincount().tolist() == [n // 10] * 10
        image, label = data[0]
        assert image.shape == (1, 32, 32) and image.min() == -1 and 0.9 < image.max() <= 1 and isinstance(label, int)
        assert image[:, :2].max() == -1 and image[:, :, -2:].max() == -1           # the padding
    mean = data.images.float().mean() / 255
    assert abs(mean - .2868) < .002                                                 # the known mean of the test images
    assert data.class_names[int(load_dataset('fashion_mnist').labels[0])] == 'ankle boot'


def test_it_trains_and_samples_are_written_at_their_own_size(need, tmp_path):
    need(any(f.is_dir() for f in SYSTEM_FOLDERS), 'Fashion-MNIST is not installed: apt install dataset-fashion-mnist')
    run = train(TrainConfig(model='xar_tiny', runs_dir=str(tmp_path), name='f', steps=2, batch_size=4, sample_steps=2))
    config = json.loads((run / 'config.json').read_text())['config']
    assert (config['dataset'], config['patch']) == ('fashion_mnist', 4)
    # the judge is fitted on real images; few are enough here
    report = evaluate(run, n=10, steps=1, progress=False)
    assert np.load(report.folder / 'samples.npz')['images'].shape == (10, 28, 28, 1)


def test_missing_data_says_how_to_get_it(monkeypatch, tmp_path):
    import pytest
    import xar_lab.data as data
    from torchvision.datasets import FashionMNIST
    monkeypatch.setattr(data, 'SYSTEM_FOLDERS', [])
    monkeypatch.setattr(FashionMNIST, 'mirrors', ['http://127.0.0.1:9/'])            # nobody listens there
    with pytest.raises(FileNotFoundError, match='apt install dataset-fashion-mnist'): load_dataset('fashion_mnist', root=str(tmp_path))
