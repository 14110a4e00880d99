"The project itself: notebooks and modules agree, parameters survive cleaning, importing is cheap and quiet."
import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))
RUN_NOTEBOOKS = [ROOT / 'nbs' / f'{name}.ipynb'
                 for name in ('train', 'evaluate', 'generate', 'exposure_bias', 'train_extractor', 'train_autoencoder',
                              'cache_latents', 'latents_or_pixels', 'benchmark', 'fewer_evaluations')]


def cells(path, kind='code'):
    return [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == kind]


def parameters_of(path):
    [cell] = [c for c in cells(path) if 'parameters' in c['metadata'].get('tags', [])]
    return {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(''.join(cell['source'])).body}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "The project as `make export` leaves it, made in a copy."
    copy = tmp_path_factory.mktemp('copy') / 'project'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_docs', '_proc', 'build',
                                                              '__pycache__', '*.egg-info'))
    for command in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([BIN / command], cwd=copy, check=True, capture_output=True)
    subprocess.run(['make', 'readme', f'BIN={BIN}', 'READY='], cwd=copy, check=True, capture_output=True)
    return copy


def test_modules_are_what_the_notebooks_export(exported):
    for path in sorted((ROOT / 'xar_lab').glob('*.py')):
        assert path.read_text() == (exported / 'xar_lab'
                                    / path.name).read_text(), f'{path.name} differs: run make export'


def test_notebooks_are_clean(exported):
    for path in NOTEBOOKS:
        assert path.read_text() == (exported / 'nbs'
                                    / path.name).read_text(), f'{path.name} is not clean: run make export'


def test_no_warnings_are_stored_in_notebooks():
    for path in NOTEBOOKS:
        for cell in cells(path):
            for output in cell['outputs']:
                assert output.get('name') != 'stderr', f'{path.name} stores: {output["text"]}'


def test_readme_is_made_from_the_index(exported):
    assert (ROOT / 'README.md').read_text() == (exported
                                                / 'README.md').read_text(), 'README.md differs: run make export'


def test_readme_links_lead_somewhere():
    for link in re.findall(r'\]\((?!https?:)([^)#]+)', (ROOT / 'README.md').read_text()):
        assert (ROOT / link).exists(), link


def test_cleaning_keeps_the_parameters_tag(exported):
    for path in RUN_NOTEBOOKS: assert parameters_of(exported / 'nbs' / path.name), path.name


def test_modules_import_only_lower_numbers():
    order = [p.stem.split('_', 1)[1] for p in NOTEBOOKS if re.match(r'\d\d\w?_', p.stem)]
    for i, name in enumerate(order):
        for used in re.findall(r'^from (?:xar_lab)?\.(\w+) import', (ROOT / 'xar_lab' / f'{name}.py').read_text(),
                               re.M):
            assert order.index(used) < i, f'{name} imports {used}'


def test_train_notebook_has_the_parameters_of_the_config():
    from xar_lab.training import TrainConfig
    values = parameters_of(ROOT / 'nbs' / 'train.ipynb')
    for name, usual in dict(eval_samples=None, live=None, num_processes=None, num_machines=1, machine_rank=0,
                            main_process_ip='127.0.0.1', main_process_port=None, mixed_precision=None).items():
        assert values.pop(name) == usual
    assert values == dataclasses.asdict(TrainConfig())


def test_every_parameter_is_explained():
    for path in RUN_NOTEBOOKS:
        source = ''.join(next(c for c in cells(path) if 'parameters' in c['metadata'].get('tags', []))['source'])
        for line in source.splitlines():
            assert line.startswith('#') or '# ' in line, f'{path.name}: no word about: {line}'


def test_import_is_cheap_and_quiet(tmp_path):
    code = ("import sys, time, torch; before = set(sys.modules); started = time.perf_counter(); import xar_lab; "
            "seconds = time.perf_counter() - started; assert seconds < 1, seconds; "
            "import torch; assert torch.get_default_dtype() == torch.float32; print(len(set(sys.modules) - before))")
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 3 and not done.stderr and not list(tmp_path.iterdir())


def test_every_module_imports_alone_without_output(tmp_path):
    "Each in a process of its own, which starts with torch loaded, to save time."
    names = [path.stem for path in (ROOT / 'xar_lab').glob('[a-z]*.py')]
    code = f"""import os, sys, torch
for name in {names}:
    child = os.fork()
    if not child:
        __import__('xar_lab.' + name)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]: sys.exit(name + ' does not import alone')"""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout and not list(tmp_path.iterdir()), done.stderr
