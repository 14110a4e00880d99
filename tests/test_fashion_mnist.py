"Fashion-MNIST, where it is installed."
import json

import numpy as np
import pytest
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
        assert torch.equal(load_dataset('fashion_mnist', split, padding=0)[0][0], image[:, 2:-2, 2:-2])
    mean = data.images.float().mean() / 255
    assert abs(mean - .2868) < .002                                                 # the known mean of the test images
    assert data.class_names[int(load_dataset('fashion_mnist').labels[0])] == 'ankle boot'


@pytest.mark.slow
def test_it_trains_and_samples_are_written_at_their_own_size(need, tmp_path):
    need(any(f.is_dir() for f in SYSTEM_FOLDERS), 'Fashion-MNIST is not installed: apt install dataset-fashion-mnist')
    run = train(TrainConfig(model='xar_tiny', runs_dir=str(tmp_path), name='f', steps=2, batch_size=4, sample_steps=2,
                            compile=False))
    config = json.loads((run / 'config.json').read_text())['config']
    assert (config['dataset'], config['patch']) == ('fashion_mnist', 4)
    report = evaluate(run, n=10, steps=1, progress=False)
    assert np.load(report.folder / 'samples.npz')['images'].shape == (10, 28, 28, 1)


def test_missing_data_says_how_to_get_it(monkeypatch, tmp_path):
    from torchvision.datasets import FashionMNIST

    import xar_lab.data as data
    monkeypatch.setattr(data, 'SYSTEM_FOLDERS', [])
    monkeypatch.setattr(FashionMNIST, 'mirrors', ['http://127.0.0.1:9/'])            # nobody listens there
    with pytest.raises(FileNotFoundError, match='apt install dataset-fashion-mnist'):
        load_dataset('fashion_mnist', root=str(tmp_path))


@pytest.mark.slow
def test_the_extractor_and_the_floor(need):
    """The frozen classifier is as good as promised, and real held-out images handed in as samples land on the floor;
    blurred ones do not."""
    need(any(f.is_dir() for f in SYSTEM_FOLDERS), 'Fashion-MNIST is not installed: apt install dataset-fashion-mnist')
    from xar_lab.evaluation import Real, balanced_labels, draw_like, measure
    from xar_lab.features import accuracy, classifier_facts, extractor_files, load_classifier
    real, path = Real('fashion_mnist'), extractor_files()['fashion_mnist_cnn']
    held_out = accuracy(load_classifier(path), real.test_images, real.test_labels)
    assert held_out >= .91 and abs(held_out - classifier_facts(path)['accuracy']) < 2e-4
    chosen = draw_like(real.test_labels, balanced_labels(640, 10), 640, 'handed in')
    images, labels = real.test_images[chosen], real.test_labels[chosen]
    good = measure(images, labels, 'fashion_mnist', progress=False)
    floor = good['floors']['fd_fashion_mnist_cnn']
    assert abs(good['metrics']['fd_fashion_mnist_cnn'] - floor['mean']) < 3 * floor['sd'] and abs(
        good['metrics']['two_sample'] - .5) < .06
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(images.float(), [1] * 4, mode='replicate'), 3,
                                             1).round().to(torch.uint8)
    bad = measure(blurred, labels, 'fashion_mnist', progress=False)
    assert bad['metrics']['fd_over_floor'] > 3 and bad['metrics']['two_sample'] > .85
