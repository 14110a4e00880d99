"Videos from end to end: train on them, draw, judge, look; and what does not fit, in one line before work."
import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from xar_lab.build import build
from xar_lab.config import TrainConfig
from xar_lab.context_explorer import ContextExplorer
from xar_lab.data import DATASETS, ImageDataset, load_dataset, register_dataset
from xar_lab.distances import find_features
from xar_lab.evaluation import evaluate, evaluate_samples
from xar_lab.images import ImageSpec
from xar_lab.sample_files import read_samples
from xar_lab.samples import DrawnImages, Source, balanced_labels, draw_shards, write_npz
from xar_lab.state import load_run
from xar_lab.training import train
from xar_lab.trajectory_player import TrajectoryPlayer

CELLS = dict(dataset='sliding', layout='cell', size=[1, 6, 6], patch=2, batch_size=16, steps=3, sample_steps=2)


def sliding(split='train'):
    "Digits of four classes that slide to the right, 4 frames of 8×8 with a padding of 2: latents of 4×6×6."
    digits = load_dataset('digits', split)
    images, labels = digits.images[digits.labels < 4], digits.labels[digits.labels < 4]
    frames = torch.stack([images.roll(t, -1) for t in range(4)], 2)
    return ImageDataset(frames, labels, list('0123'), f'sliding/{split}', padding=2, levels=17)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    register_dataset('sliding', sliding)
    with contextlib.redirect_stdout(io.StringIO()):
        yield train(TrainConfig(**CELLS, name='videos', runs_dir=str(tmp_path_factory.mktemp('runs'))))
    del DATASETS['sliding']


def test_training_writes_a_grid_of_strips(run):
    model, codec, config = load_run(run)
    assert model.layout.grid == (4, 6, 6) and model.layout.n_entities == 4 and config.size == [1, 6, 6]
    assert codec.encode(torch.zeros(2, 1, 4, 12, 12)).shape == (2, 4, 4, 6, 6)
    [*_, grid] = sorted((run / 'samples').glob('*.png'))
    strip = 4 * 32 + 3                                                  # a row for each class, four strips in it
    assert Image.open(grid).size == (64 + 4 * (strip + 2) + 2, 4 * 34 + 2)


def test_samples_are_judged_by_one_frame_each(run, tmp_path):
    report = evaluate(run, n=40, progress=False)
    assert report.metrics['fd_pixels'] > 0 and 'class_accuracy' not in report.metrics
    assert report.numbers['notes'][0] == 'one frame of each video was judged: no number here sees motion'
    stored = np.load(report.folder / 'samples.npz')
    assert stored['images'].shape == (40, 4, 8, 8, 1) and stored['images'].dtype == np.uint8
    again = evaluate_samples(report.folder, 'sliding', tmp_path / 'again', progress=False)
    assert again.metrics['fd_pixels'] == report.metrics['fd_pixels']
    with pytest.raises(ValueError, match=r'an extractor sees images \[c, h, w\], got \[1, 4, 8, 8\]: of videos'):
        find_features(read_samples(report.folder, list('0123'))[0], 'pixels')


def test_shards_and_archives_hold_videos(run, tmp_path):
    labels = balanced_labels(8, 4)
    drawn = draw_shards(Source(run=str(run)), labels, tmp_path, sampling=dict(steps=2), shard_size=3, progress=False)
    assert isinstance(drawn, DrawnImages) and drawn.all().shape == (8, 1, 4, 8, 8)
    write_npz(drawn, tmp_path / 'all.npz')
    images, stored = read_samples(tmp_path / 'all.npz', list('0123'))
    assert torch.equal(images, drawn.all()) and torch.equal(stored, labels)


def test_player_and_explorers_show_all_frames(run, tmp_path):
    player = TrajectoryPlayer(run, folder=tmp_path, label=2, two=True)
    [film, _] = player.films.values()
    assert film.state(0).shape == (1, 8, 4 * 8 + 3) and len(player.figure(8).frames) == 8
    [*gifs] = player.save_gif() + player.save_strip()
    assert [path.suffix for path in gifs] == ['.gif', '.gif', '.png', '.png'] and all(path.is_file() for path in gifs)
    explorer = ContextExplorer('random', dict(kind='cell', size=[1, 4, 4]), images=sliding()[0][0][None])
    explorer.layout_menu.value = 'token'
    assert 'Error' not in explorer.said.value and explorer.figure().data


def test_a_run_of_videos_starts_from_one_of_images(run, tmp_path):
    with contextlib.redirect_stdout(io.StringIO()):
        image = train(TrainConfig(steps=1, batch_size=8, sample_steps=1, name='image', runs_dir=str(tmp_path)))
    started = build(TrainConfig(**CELLS, init_from=str(image))).started
    assert started['positions'] != 'kept' and started['blocks, norms and time'] == 'kept'


@pytest.mark.parametrize('change, said', [
    (dict(size=[3, 2, 2]), '3 does not divide the 4 frames of the grid; possible: 1, 2, 4'),
    (dict(size=[2, 2]), r'or a list of 3 of them, got \[2, 2\]'),
    (dict(size=None, layout='haar'), r"layout 'haar' takes grids \(rows, columns\), got 4×6×6"),
    (dict(order='spiral'), r"order 'spiral' takes grids \(rows, columns\), got 4×6×6"),
    (dict(patch=5), r'h and w divisible by 5')])
def test_bad_input_is_one_line_before_work(run, change, said):
    with pytest.raises(ValueError, match=said) as error: build(TrainConfig(**CELLS | change))
    assert '\n' not in str(error.value)


def test_levels_and_padding_are_those_of_space(run):
    assert ImageSpec(padding=2, levels=17) == ImageSpec(sliding().padding, sliding().levels)
    video, label = sliding()[5]
    assert video.shape == (1, 4, 12, 12) and label == sliding().labels[5] and (video[:, :, :2] == -1).all()
