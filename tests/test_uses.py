"Choices of packages outside: trained by papermill, drawn by two processes, loaded later; and what is not imported."
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, papermill

from xar_lab.callbacks import CALLBACKS

FAR = '''
from xar_lab.callbacks import CALLBACKS
from xar_lab.context import CONTEXTS, register_context
from xar_lab.heads import TokenMLP, register_head
from xar_lab.latents import PixelCodec, register_codec

class Far(PixelCodec): "Pixels under another name."
class FarHead(TokenMLP): "A head apart under another name."

register_context('far', CONTEXTS['clean'])
register_codec('far', Far)
register_head('far', FarHead)
recipe = dict(context='far', codec='far', head='far', head_options=dict(depth=1), label_dropout=.2,
              uses=['far_choices.more'])
'''
MORE = "from xar_lab.solvers import SAMPLERS, register_sampler\nregister_sampler('far', SAMPLERS['euler'])\n"
NEAR = "from xar_lab.entities import LAYOUTS, register_layout\nregister_layout('near', LAYOUTS['token'])\n"


def install(place, package, module, **more):
    "What pip leaves: a package, and beside it the description of its distribution."
    info = place / f'{package}-1.0.dist-info'
    files = {f'{package}/__init__.py': '', **{f'{package}/{name}.py': text for name, text in module.items()}}
    described = dict(METADATA=f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n',
                     RECORD=''.join(f'{file},,\n' for file in files), **more)
    for path, text in [*((place / f, t) for f, t in files.items()), *((info / f, t) for f, t in described.items())]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def said(code, *path, cwd, **values):
    "What a fresh process prints at its end, with these folders on its path; each value is a name in it."
    code = ''.join(f'{name} = {str(value)!r}\n' for name, value in values.items()) + code
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, (ROOT, *path))), 'PYTHONWARNINGS': 'error::UserWarning'}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    "A folder with an installed package, and one with a module that only lies there."
    far, near = (tmp_path_factory.mktemp(name) for name in ('far', 'near'))
    install(far, 'far_choices', {'choices': FAR, 'more': MORE},
            **{'entry_points.txt': '[xar_lab.recipes]\nfar_method = far_choices.choices:recipe\n'})
    (near / 'near_choices.py').write_text(NEAR)
    return far, near


@pytest.fixture(scope='module')
def run(places, tmp_path_factory):
    "A run that papermill trained with the choices of both."
    folder = tmp_path_factory.mktemp('runs')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join(map(str, (ROOT, *places))))
        done = papermill('train', folder / 'out.ipynb', runs_dir=folder, name='mixed', recipe='far_method',
                         layout='near', uses=['near_choices'], sampler='far', steps=3, batch_size=8,
                         sample_steps=1, eval_samples=20, live=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / 'mixed'


def test_what_was_used_is_written_down(run):
    saved = json.loads((run / 'config.json').read_text())
    config, uses = saved['config'], saved['uses']
    assert (config['layout'], config['context'], config['codec'], config['label_dropout']) == ('near', 'far', 'far', .2)
    assert config['uses'] == ['near_choices', 'far_choices.more'] and config['recipe'] == 'far_method'
    assert {name: kept['registered'] for name, kept in uses.items()} == {
        'near_choices': ['layout near'], 'far_choices.more': ['sampler far'],
        'far_choices.choices': ['codec far', 'context far', 'head far']}
    assert all(re.fullmatch('[0-9a-f]{64}', kept['sha256']) for kept in uses.values())


@pytest.mark.slow
def test_two_processes_draw_and_a_later_one_loads(run, places, tmp_path):
    "What is installed is found; what is not must be passed, in one line that says so, before other processes start."
    lines = said('''
from xar_lab.evaluation import evaluate
from xar_lab.state import load_run
for call in (load_run, evaluate):
    try: call(run)
    except ValueError as e: print(e)
report = evaluate(run, folder=folder, n=20, processes=2, uses=['near_choices'], progress=False)
try: evaluate(run, folder=folder, n=20, processes=2, progress=False)
except ValueError as e: print(e)
model, codec, config = load_run(run)          # near_choices is here now
print(report.numbers['n'], model.layout.kind, type(codec).__name__, config.sampler)
''', *places, cwd=tmp_path, run=run, folder=tmp_path / 'e')
    line = (f"{run} was trained with layout 'near' of near_choices, which is not installed here: install it, or pass "
            "uses=['near_choices'] if you trust it")
    assert lines == [line, line, line, '20 token Far far']


def test_without_the_package_one_line_says_what_is_missing(run, tmp_path):
    near, again, far = said('''
from xar_lab.samples import Source
from xar_lab.state import load_run
for call in (lambda: load_run(run, uses=['json']), Source(run=run).open, lambda: load_run(run, uses=['near_choices'])):
    try: call()
    except ValueError as e: print(e)
''', cwd=tmp_path, run=run)
    missing = ("{} was trained with {} of {}, which is not installed here: "
               "install it, or pass uses=['{}'] if you trust it")
    assert near == again == missing.format(run, "layout 'near'", *['near_choices'] * 2)
    assert far == missing.format(run, "sampler 'far'", *['far_choices.more'] * 2)


def test_a_changed_module_is_told_of(run, places, tmp_path):
    changed = tmp_path / 'near'
    changed.mkdir()
    (changed / 'near_choices.py').write_text(NEAR + '# changed\n')
    [line] = said('''
import warnings
from xar_lab.state import load_run
try: load_run(run, uses=['near_choices'])
except UserWarning as e: print(e)
''', places[0], changed, cwd=tmp_path, run=run)
    assert line == f"near_choices has changed since {run} was trained with it: what it registers may be something else"


def test_a_run_folder_runs_no_code(run, tmp_path):
    "A module, and even an installed-looking package with a recipe, in the run folder: not imported, unless passed."
    hostile = tmp_path / 'hostile'
    shutil.copytree(run, hostile)
    ran = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    (hostile / 'evil.py').write_text(ran)
    install(hostile, 'worse', {'choices': ran}, **{'entry_points.txt': '[xar_lab.recipes]\nworst = worse.choices:x\n'})
    saved = json.loads((hostile / 'config.json').read_text())
    saved['config'] |= dict(uses=['evil', 'worse.choices'], layout='token', context='clean', sampler='euler',
                            codec='pixels', recipe='worst')
    saved['codec']['name'] = 'pixels'
    saved['uses'] = {name: dict(sha256=None, registered=['layout token', 'codec pixels'])
                     for name in ('evil', 'worse.choices')}
    (hostile / 'config.json').write_text(json.dumps(saved))
    lines = said('''
import json, os
from pathlib import Path
from xar_lab.build import read_start
from xar_lab.config import TrainConfig, resolve
from xar_lab.evaluation import evaluate
from xar_lab.samples import Source
from xar_lab.state import load_run
def attempt(call, *given):
    try: print('loaded', call(*given))
    except (ValueError, UserWarning) as e: print(e)
for call in (load_run, evaluate, lambda run: Source(run=run).open(), read_start,
             lambda run: load_run(run, uses=['worse'])):
    for run in ('.', os.getcwd()): attempt(call, run)
print(Path(ran).exists())
saved = json.loads(Path('config.json').read_text())
for kept in saved['uses'].values(): kept['registered'] = []
Path('config.json').write_text(json.dumps(saved))
attempt(load_run, '.')                                       # nothing of them is needed: they are left out
print(Path(ran).exists())
attempt(lambda: resolve(TrainConfig(recipe='worst')))
print(Path(ran).exists())
attempt(lambda: load_run('.', uses=['evil']))
print(Path(ran).exists())
''', hostile, cwd=hostile, ran=tmp_path / 'ran')
    *refused, no, left_out, still_no, recipe, never, _, yes = lines
    assert len(refused) == 10 and all(
        "was trained with codec 'pixels' and layout 'token' of evil, which is not" in line for line in refused)
    assert "unknown layout 'near'" in left_out and recipe.startswith("unknown recipe 'worst'; known: acdit, ")
    assert (no, still_no, never, yes) == ('False', 'False', 'False', 'True'), lines      # the last: it would be seen


def test_callbacks_of_the_library_are_known_to_other_processes():
    CALLBACKS.must_travel('tracker')
