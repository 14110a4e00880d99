"`papermill nbs/train.ipynb -p model xar_l` as typed: on a terminal, piped, with an output path."
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SHORT = '-p steps 4 -p batch_size 8 -p sample_steps 2 -p eval_samples 20 -p name short'.split()


@pytest.fixture
def environment(): return {**os.environ, 'PATH': f'{BIN}:{os.environ["PATH"]}', 'XAR_LAB_OUTPUT': ''}


@pytest.fixture
def new_in_runs():
    "The notebooks that a test added to runs/; taken away after it."
    before = set((ROOT / 'runs').glob('*.ipynb'))
    found = lambda: sorted(set((ROOT / 'runs').glob('*.ipynb')) - before)
    yield found
    for path in found(): path.unlink()


def on_a_terminal(command, environment):
    "Run with a pseudo-terminal for input and output. -> exit status, what it printed"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
                               close_fds=True)
    os.close(theirs)
    said = b''
    while True:
        try: part = os.read(ours, 65536)
        except OSError: break
        if not part: break
        said += part
    os.close(ours)
    return process.wait(), said.decode(errors='replace').replace('\r\n', '\n')


@pytest.mark.slow
def test_without_the_cache_it_plans_and_says_how_to_make_it(environment, new_in_runs):
    started = time.perf_counter()
    status, said = on_a_terminal(['papermill', 'nbs/train.ipynb', '-p', 'model', 'xar_l'], environment)
    assert status != 0 and time.perf_counter() - started < 45
    assert re.search(r'at least .* here', said)
    for what in ('608,397,968 parameters', 'H100', '500,455 steps of 2,048 images'): assert what in said
    assert re.search(r'MissingData: the ImageNet latent cache is not in \S+; make it with: papermill '
                     r'nbs/cache_latents\.ipynb', said.strip().splitlines()[-1])
    [notebook] = new_in_runs()
    assert re.fullmatch(r'train-xar_l-\d{8}-\d{6}\.ipynb', notebook.name) and f'will be runs/{notebook.name}' in said


def test_piped(environment, new_in_runs, tmp_path):
    command = ['papermill', 'nbs/train.ipynb', '-p', 'runs_dir', str(tmp_path), *SHORT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, input='')
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'fd_digits_cnn' in done.stdout and '"cells"' not in done.stdout      # what the notebook prints, not its JSON
    [notebook] = new_in_runs()
    assert 'short' in notebook.read_text() and (tmp_path / 'short' / 'eval' / 'default' / 'report.json').exists()


def test_a_mistake_is_said_first_and_alone(environment, new_in_runs):
    for words, said in ((['-p', 'colour', 'red'], 'unknown parameter colour; known: model'),
                        (['-p', 'layout', 'cel'], "ValueError: unknown layout 'cel'; known: antidiagonal, cell")):
        done = subprocess.run(['papermill', 'nbs/train.ipynb', *words], cwd=ROOT, env=environment, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        assert done.returncode != 0 and done.stderr.startswith(said) and done.stdout == '', done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    [notebook] = new_in_runs()                                              # of the second; the first never began
    assert 'cel' in notebook.read_text()


def test_with_an_output_path_and_for_other_notebooks_nothing_changes(environment, new_in_runs, tmp_path):
    (tmp_path / 'x.ipynb').write_text(json.dumps(dict(cells=[],
                                                      metadata=dict(kernelspec=dict(name='python3', display_name='',
                                                          language='python')), nbformat=4, nbformat_minor=5)))
    done = subprocess.run(['papermill', tmp_path / 'x.ipynb', tmp_path / 'out.ipynb'], cwd=ROOT, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / 'out.ipynb').exists() and 'no output path' not in done.stderr
    status, said = on_a_terminal(['papermill', str(tmp_path / 'x.ipynb')], environment)
    assert status != 0 and "Missing argument 'OUTPUT_PATH'" in said
    status, said = on_a_terminal(['papermill', 'nbs/train.ipynb'], {**environment, 'XAR_LAB_OUTPUT': 'off'})
    assert status != 0 and "Missing argument 'OUTPUT_PATH'" in said and not new_in_runs()
