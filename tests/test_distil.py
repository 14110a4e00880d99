"From a trained run to one that draws in a few steps, by the run notebook."
import json

import pytest
from conftest import papermill, printed, refused

from xar_lab.held_out import held_out_loss
from xar_lab.runs import read_lines

QUICK = dict(images=40, steps=3, eval_samples=20)


def test_a_map_of_a_run(little_run, tmp_path):
    "Drawn, trained and judged at several numbers of steps; the same command goes on where it was."
    told = dict(run=little_run, name='student', runs_dir=tmp_path, **QUICK, evaluations=[1, 2])
    done = papermill('distil', tmp_path / 'out.ipynb', **told)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tmp_path / 'student' / 'config.json').read_text())['config']
    assert (config['flow'], config['dataset'], config['sampler']) == ('mean', 'drawn', 'map')
    assert len([*(tmp_path / 'student-drawn').glob('samples-*.npz')]) == 1
    assert read_lines(tmp_path / 'student' / 'metrics.jsonl')
    for steps in (1, 2):
        report = json.loads((tmp_path / 'student' / 'eval' / f'steps{steps}' / 'report.json').read_text())
        assert report['metrics']['nfe'] == 4 * steps and report['real'] == dict(name='digits')
    trained = (tmp_path / 'student' / 'checkpoints').stat().st_mtime_ns
    assert papermill('distil', tmp_path / 'again.ipynb', **told).returncode == 0
    assert '40 of 40 samples are already there' in ''.join(printed(tmp_path / 'again.ipynb'))
    assert (tmp_path / 'student' / 'checkpoints').stat().st_mtime_ns == trained


@pytest.mark.slow
def test_half_of_the_evaluations(little_run, tmp_path):
    told = dict(run=little_run, name='g', runs_dir=tmp_path, method='guidance', guidance=2., **QUICK | dict(images=0))
    done = papermill('distil', tmp_path / 'out.ipynb', **told)
    assert done.returncode == 0, done.stderr[-2000:]
    config, teacher = (json.loads((run / 'config.json').read_text())['config'] for run in (tmp_path / 'g', little_run))
    assert (config['flow'], config['flow_options']['guidance'], config['dataset']) == ('guided', 2., 'digits')
    same = ('sampler', 'sample_steps', 'sampler_options', 'guidance', 'layout')
    assert {k: config[k] for k in same} == {k: teacher[k] for k in same}
    report = json.loads((tmp_path / 'g' / 'eval' / f"steps{teacher['sample_steps']}" / 'report.json').read_text())
    of_teacher = json.loads((tmp_path / 'g-drawn' / 'teacher' / 'report.json').read_text())
    guided = 2 if teacher['guidance'] > 1 else 1
    assert of_teacher['metrics']['nfe'] == guided * report['metrics']['nfe']


@pytest.mark.slow
def test_half_of_the_steps_again_and_again(little_run, tmp_path):
    told = dict(run=little_run, name='h', runs_dir=tmp_path, method='halving', first=4, guidance=2., **QUICK)
    done = papermill('distil', tmp_path / 'out.ipynb', **told)
    assert done.returncode == 0, done.stderr[-2000:]
    configs = [json.loads((tmp_path / f'h-{k}' / 'config.json').read_text())['config'] for k in (4, 2, 1)]
    options = [config['flow_options'] for config in configs]
    assert [o['teacher'] for o in options] == [str(little_run), str(tmp_path / 'h-4'), str(tmp_path / 'h-2')]
    assert [o['weight'] for o in options] == [2., 1., 1.]                      # guidance is in the first, and so in all
    for k in (4, 2, 1):
        report = json.loads((tmp_path / f'h-{k}' / 'eval' / f'steps{k}' / 'report.json').read_text())
        assert report['metrics']['nfe'] == 4 * k and report['real'] == dict(name='digits')
    assert held_out_loss(tmp_path / 'h-2', images=20).loss > 0


def test_bad_input_is_one_line(little_run, tmp_path):
    told = dict(run=str(little_run), runs_dir=str(tmp_path), **QUICK)
    for values, says in (
            (dict(method='guess'), 'method must be one of map, guidance, halving'),
            (dict(run=str(tmp_path / 'x')), 'no run'),
            (dict(images=33), 'positive multiple of the 10 classes'), (dict(evaluations=[0]), 'evaluations'),
            (dict(evaluations=[]), 'evaluations must be a list'), (dict(stpes=3), 'unknown parameter stpes'),
            (dict(name='little', runs_dir=str(little_run.parent)), 'is the teacher'),
            (dict(guidance=.5), "flow 'mean': guidance"),
            (dict(method='halving', first=6), 'first must be a power of two')):
        said = refused('distil', **told | values)
        assert says in said and '\n' not in said, (values, said)
    assert not [*tmp_path.iterdir()]
