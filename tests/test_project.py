"The project itself: notebooks and modules agree, parameters survive cleaning, importing is cheap and quiet."
import ast
import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
RUN_NOTEBOOKS = [ROOT / 'nbs' / f'{name}.ipynb' for name in (
    'train', 'evaluate', 'distil', 'neon', 'generate', 'compare', 'gallery', 'train_extractor', 'train_autoencoder',
    'cache_latents', 'studies/exposure_bias', 'studies/in_painting', 'studies/latents_or_pixels', 'studies/benchmark',
    'studies/fewer_evaluations', 'studies/control', 'studies/moving_digits')]


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
    for path in sorted((ROOT / 'xar_lab').rglob('*.py')):
        made = exported / path.relative_to(ROOT)
        assert path.read_text() == made.read_text(), f'{path.name} differs: run make export'


def test_notebooks_are_clean(exported):
    for path in NOTEBOOKS:
        clean = (exported / path.relative_to(ROOT)).read_text()
        assert path.read_text() == clean, f'{path.name} is not clean: run make export'


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
    for path in RUN_NOTEBOOKS: assert parameters_of(exported / path.relative_to(ROOT)), path.name


def test_the_house_rules_hold():
    "One idea per exported cell, lines of 120 characters, imports that point one way, no long module."
    found = subprocess.run([sys.executable, ROOT / 'tests' / 'gates.py'], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize('change, message', [
    (lambda s: s + '\n' + '\n'.join(f'x{i} = {i}' for i in range(31)), 'lines, at most 30 for a cell'),
    (lambda s: s + f"\nlong = '{'x' * 120}'", 'characters, at most 120'),
    (lambda s: s + '\nfrom xar_lab.training import train', 'a later room'),
    (lambda s: s + '\nfrom xar_lab.core import _is_full', 'private there')])
def test_each_rule_is_seen_to_break(tmp_path, change, message):
    "A cell is changed for the worse in a copy; the gate must see it."
    copy = tmp_path / 'project'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_docs', 'build', 'papers',
                                                              'data'))
    path = copy / 'nbs' / '03_flow.ipynb'
    notebook = json.loads(path.read_text())
    cell = next(c for c in notebook['cells'] if ''.join(c['source']).startswith('#| export\nclass LinearFlow'))
    at = notebook['cells'].index(cell) + 1
    source = change('#| export\nunused = 0')
    notebook['cells'].insert(at, dict(cell, id='worse', source=source.splitlines(True), outputs=[]))
    path.write_text(json.dumps(notebook))
    subprocess.run([BIN / 'nbdev_export'], cwd=copy, check=True, capture_output=True)
    found = subprocess.run([sys.executable, copy / 'tests' / 'gates.py', '03_flow'], capture_output=True, text=True)
    assert found.returncode == 1 and message in found.stdout, found.stdout


def test_names_that_moved_are_still_found():
    "Every public name of version 0.1, where it was."
    for module, names in json.loads((ROOT / 'tests' / 'public_names.json').read_text()).items():
        for name in names:
            assert getattr(importlib.import_module(f'xar_lab.{module}'), name, None) is not None, (module, name)


def test_git_hooks_are_set_up_by_one_command(tmp_path):
    "`make hooks`: notebooks are merged cell by cell, and cleaned before they are saved."
    copy = tmp_path / 'project'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_docs', 'build', 'papers',
                                                              'data'))
    subprocess.run(['git', 'init', '-q'], cwd=copy, check=True)
    subprocess.run(['make', 'hooks', f'BIN={BIN}', 'READY='], cwd=copy, check=True, capture_output=True)
    config = subprocess.run(['git', 'config', '--list', '--local'], cwd=copy, capture_output=True, text=True).stdout
    assert 'nbdev' in config + (copy / '.git' / 'hooks' / 'post-merge').read_text()
    assert 'nbdev-merge' in (copy / '.gitattributes').read_text()


def test_train_notebook_has_the_parameters_of_the_config():
    from xar_lab.config import TrainConfig
    values = parameters_of(ROOT / 'nbs' / 'train.ipynb')
    for name, usual in dict(eval_samples=None, live=None, num_processes=None, num_machines=1, machine_rank=0,
                            main_process_ip='127.0.0.1', main_process_port=None, mixed_precision=None).items():
        assert values.pop(name) == usual
    assert values == dataclasses.asdict(TrainConfig())
    [cell] = [c for c in cells(ROOT / 'nbs' / 'train.ipynb') if 'parameters' in c['metadata'].get('tags', [])]
    # comments name what is registered: in a process in which no other test has registered anything
    code = 'from xar_lab.config import TrainConfig; from xar_lab.settings import setting_lines; ' \
           'print(*setting_lines(TrainConfig), sep="\\n", end="")'
    made = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert ''.join(cell['source']).startswith(made), 'the parameters cell differs from the fields of TrainConfig'


def test_every_parameter_is_explained():
    for path in RUN_NOTEBOOKS:
        source = ''.join(next(c for c in cells(path) if 'parameters' in c['metadata'].get('tags', []))['source'])
        lines = ['', *source.splitlines()]
        for above, line in zip(lines, lines[1:]):
            told = '# ' in line or line.startswith(' ') or above.startswith('#')
            assert told, f'{path.name}: no word about: {line}'


def test_import_is_cheap_and_quiet(tmp_path):
    code = ("import sys, time, torch; before = set(sys.modules); started = time.perf_counter(); import xar_lab; "
            "seconds = time.perf_counter() - started; assert seconds < 1, seconds; "
            "import torch; assert torch.get_default_dtype() == torch.float32; print(len(set(sys.modules) - before))")
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 3 and not done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
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
