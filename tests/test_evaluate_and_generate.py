"nbs/evaluate.ipynb and nbs/generate.ipynb as papermill runs them; torch-fidelity's command line on the same files."
import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BIN, ROOT, golden_network, papermill, printed, random_inception, refused
from PIL import Image

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run of a few steps."
    from xar_lab.training import TrainConfig, train
    return train(TrainConfig(name='short', runs_dir=str(tmp_path_factory.mktemp('runs')), steps=30, batch_size=32,
                             sample_steps=4))


def test_generate_writes_images_grid_and_film(run, tmp_path):
    done = papermill('generate', tmp_path / 'out.ipynb', run=run, classes='3,8', count=5, guidance=1.5,
                     folder=tmp_path / 'g')
    assert done.returncode == 0, done.stderr[-3000:]
    pictures = sorted((tmp_path / 'g').glob('*.png'))
    assert len(pictures) == 10 and Image.open(pictures[0]).size == (8, 8)
    assert list(json.loads((tmp_path / 'g' / 'labels.json').read_text()).values()) == [3] * 5 + [8] * 5
    # 4 entities of 4 steps
    with Image.open(tmp_path / 'g' / 'grid' / 'trajectory.gif') as gif: assert 15 <= gif.n_frames <= 4 * 5
    settings = json.loads((tmp_path / 'g' / 'settings.json').read_text())
    assert settings['sampling']['guidance'] == 1.5 and settings['nfe'] == 4 + 3 * 8 and len(
        settings['source']['sha256']) == 64
    assert papermill('generate', tmp_path / 'out.ipynb', run=run, classes='3', count=5, guidance=1.5,
                     folder=tmp_path / 'g').returncode == 0
    again = sorted((tmp_path / 'g').glob('*.png'))
    # nothing of the first call is left
    assert len(again) == 5 and settings != json.loads((tmp_path / 'g' / 'settings.json').read_text())


@pytest.mark.slow
def test_generate_from_published_weights(tmp_path):
    golden_network(tmp_path / 'authors.pth')
    done = papermill('generate', tmp_path / 'out.ipynb', weights=tmp_path / 'authors.pth', codec='pixels',
                     codec_options={'patch': 4}, classes=1, count=2, steps=2, folder=tmp_path / 'g')
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'g').glob('*.png'))) == 2


def test_evaluate_a_run_and_torch_fidelity_agrees(run, tmp_path):
    done = papermill('evaluate', tmp_path / 'out.ipynb', run=run, folder=tmp_path / 'e', n=320, png=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / 'e' / 'report.json').read_text())
    outputs = json.dumps([c.get('outputs') for c in json.loads((tmp_path / 'out.ipynb').read_text())['cells']])
    assert outputs.count('image/png') == 2 and 'fd_digits_cnn' in outputs and 'real held-out images' in outputs
    [command] = [line for text in printed(tmp_path / 'out.ipynb') for line in text.splitlines()
                 if line.startswith('xar-fidelity')]
    theirs = subprocess.run([BIN / 'xar-fidelity', *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert theirs.returncode == 0, theirs.stderr
    theirs, ours = json.loads(theirs.stdout), report['metrics']
    pairs = dict(frechet_inception_distance='fd_digits_cnn', kernel_inception_distance_mean='kid_digits_cnn',
                 kernel_inception_distance_std='kid_sd',
                 precision='precision', recall='recall', inception_score_mean='is_digits_cnn')
    for key, name in pairs.items(): assert theirs[key] == pytest.approx(ours[name], rel=1e-6, abs=1e-9), name


def test_evaluate_samples_in_any_order_and_form(run, tmp_path):
    from xar_lab.data import load_dataset
    from xar_lab.evaluation import evaluate_samples
    from xar_lab.features import real_images
    from xar_lab.sample_files import save_images
    images, labels = real_images(load_dataset('digits', 'test'))
    images, labels = images[:200], labels[:200]
    save_images(images, tmp_path / 'png', labels)
    np.savez(tmp_path / 'sorted.npz', images=images[labels.argsort()].permute(0, 2, 3, 1).numpy(),
             labels=labels.sort().values.numpy())
    done = papermill('evaluate', tmp_path / 'out.ipynb', samples=tmp_path / 'png', dataset='digits',
                     folder=tmp_path / 'e')
    assert done.returncode == 0, done.stderr[-3000:]
    first = json.loads((tmp_path / 'e' / 'report.json').read_text())
    second = evaluate_samples(tmp_path / 'sorted.npz', 'digits', tmp_path / 'f', progress=False).numbers
    assert first['metrics'] == pytest.approx(second['metrics'],
                                             rel=1e-9) and first['floors'] == second['floors'] and first['metrics'][
                                                 'class_accuracy'] > .97


@pytest.mark.slow
def test_fewer_evaluations(run, tmp_path):
    "Front, test and choice; what is drawn is kept, and drawn again for other weights."
    from xar_lab.training import TrainConfig, train
    student = train(TrainConfig(flow='mean', sampler='map', time_steps=0, steps=2, batch_size=4, compile=False,
                                name='student', runs_dir=str(tmp_path)))
    folder, options = tmp_path / 'f', dict(n=40, seeds=2, resamplings=20, rounds=1, margin=50, compile=False,
                                           only=['sde 50', 'euler 4', 'ab2 8 guided t < 0.7', 'taught 1'],
                                           students={'taught': str(student)}, out=tmp_path / 'f')
    def go():
        done = papermill('studies/fewer_evaluations', tmp_path / 'out.ipynb', run=run,
                         **{k: str(v) if isinstance(v, Path) else v for k, v in options.items()})
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((folder / 'results.json').read_text())
    found = go()
    # the digits' model is not guided
    assert [(row['setting'], row['nfe']) for row in found['front']] == [('sde 50', 4 * 50), ('euler 4', 4 * 4),
        ('ab2 8 guided t < 0.7', 4 * 8), ('taught 1', 4)]
    [test] = found['tested']
    assert found['chosen'] == test['setting'] == 'euler 4' and test['passed'] and test['difference'] < test[
        'upper'] <= test['allowed'] and found['front'][1]['faster'] > 1
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.npz')}
    assert len(kept) == 4 + 2 * 2
    odd = folder / 'euler_4.0.40.npz'
    with np.load(odd) as data:
        np.savez(odd, **dict(data) | dict(facts='other weights', features=np.zeros((40, 64), 'float32')))
    assert go()['front'][1]['fd'] == pytest.approx(found['front'][1]['fd'])
    assert {p.name for p in folder.glob('*.npz') if p.stat().st_mtime_ns != kept[p.name]} == {odd.name}


@pytest.mark.parametrize('notebook, parameters, message', [
    ('studies/fewer_evaluations', dict(only=['euler 5']), "only must name 'sde 50' and some of: sde 50, sde 25"),
    ('evaluate', dict(samples='x'), 'say what to compare the samples with'),
    ('generate', dict(classes='cat'), "unknown class 'cat'; known: 0, 1"),
    ('generate', dict(run='runs/nowhere'), 'no run in runs/nowhere'),
])
def test_bad_input_ends_at_once(run, notebook, parameters, message):
    own = {} if 'run' in parameters or 'samples' in parameters else {'run': str(run)}
    assert message in refused(notebook, **own, **parameters)


def test_a_word_that_is_no_parameter(run, tmp_path):
    done = papermill('evaluate', tmp_path / 'out.ipynb', run=run, sample='x')
    said = 'unknown parameter sample (did you mean samples?); known: run, weights'
    assert done.returncode != 0 and said in done.stderr


@pytest.mark.slow
def test_inception_is_read_only_from_the_file_that_was_named(tmp_path):
    "The whole path of FID, with a random network in the place of Inception's weights: names, 2048 features, its hash."
    from xar_lab.evaluation import check_extractor, distances, find_features
    from xar_lab.shards import sha256
    path = tmp_path / 'inception.pth'
    random_inception(path)
    with pytest.raises(ValueError, match='is not the file that was meant'): check_extractor('inception-v3-compat', path)
    name, found = check_extractor('inception-v3-compat', path, sha256(path)[:10])
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    features = find_features(images, name, path)
    assert features['features'].shape == (6, 2048) and set(distances(features, features)) == {'fd', 'kid', 'kid_sd',
        'precision', 'recall', 'is'}


def test_a_crafted_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self): return (Path.touch, (tmp_path / 'ran',))
    torch.save(Evil(), tmp_path / 'weights-inception-2015-12-05-6726825d.pth')
    np.savez(tmp_path / 'samples.npz', images=np.array([Evil()], dtype=object))
    from xar_lab.evaluation import check_extractor
    from xar_lab.sample_files import read_samples
    with pytest.raises(ValueError, match='is not the file that was meant'):
        check_extractor('inception-v3-compat', tmp_path / 'weights-inception-2015-12-05-6726825d.pth')
    with pytest.raises(ValueError, match='is not a file of samples'): read_samples(tmp_path, list('0123456789'))
    assert not (tmp_path / 'ran').exists()
