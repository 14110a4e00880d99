"""Do the tests see a slip? Each one of `tests/slips.txt` is made in a copy of the project, where its notebook is run.

    python tests/mutants.py                  # all slips, a table by notebook; exit status 1 below 95 % caught
    python tests/mutants.py --only 06_model 23_step
    python tests/mutants.py --list
    python tests/mutants.py --jobs 2
    python tests/mutants.py --slips mine.txt     # a list of your own, in the form of tests/slips.txt

A slip is made in the cell and in the exported module, which other notebooks' cells and worker processes import. It is
caught if the notebook fails. Before, every notebook must pass as it is.
"""
import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from gates import ROOT, cells, file_of, module_of, notebooks

ENOUGH = .95                    # share of slips that must be caught
LEFT_OUT = '.venv .git runs _docs _proc build *.egg-info .ipynb_checkpoints'.split()
# what notebooks import, loaded once: every run is a fork of this process
HEAVY = ('torch torch.distributed.fsdp torch.utils.tensorboard torchvision.transforms.v2 sklearn.svm '
         'diffusers accelerate torch_fidelity pydantic matplotlib.pyplot plotly.graph_objects ipywidgets anywidget '
         'pandas statsmodels.stats.multitest nbdev.test').split()


def read_slips(path=ROOT / 'tests' / 'slips.txt'):
    "Notebook → [(what it is, right text, slip)]."
    slips = {}
    _, *parts = re.split(r'^# (\w+)\n', path.read_text(), flags=re.M)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = [block.splitlines() for block in text.strip().split('\n\n')]
        take = lambda lines, sign: '\n'.join(line[2:] for line in lines if line[0] == sign)
        slips[name] = [(what, take(lines, '-'), take(lines, '+')) for what, *lines in blocks]
    return slips


SLIPS = read_slips()


def places_of(name, old):
    "How often a text stands in the exported cells of a notebook, and in its module."
    [path] = notebooks(name)
    module = file_of(module_of(path))
    return sum(source.count(old) for _, source, exported in cells(path) if exported), module.read_text().count(old)


def make_slip(root, name, old, new):
    "Make a slip in a copy of the project: in the cell and in the module."
    path = root / notebooks(name)[0].relative_to(ROOT)
    module, book = root / file_of(module_of(path)).relative_to(ROOT), json.loads(path.read_text())
    for cell in book['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'code' and source.lstrip().startswith('#| export'):
            cell['source'] = source.replace(old, new)
    path.write_text(json.dumps(book))
    module.write_text(module.read_text().replace(old, new))


def run_notebook(root, name):
    "In a process of its own: run a notebook of the copy as `nbdev_test` does; exit status 0 if it passes."
    os.setsid()
    with (root / 'said').open('w') as said:
        for stream in (1, 2): os.dup2(said.fileno(), stream)
    os.environ['PYTHONPATH'] = str(root)                                     # before the installed package, for workers
    (root.parent / 'tmp').mkdir()
    os.environ['TMPDIR'] = tempfile.tempdir = str(root.parent / 'tmp')       # what notebooks leave there goes, too
    sys.path.insert(0, str(root))
    os.chdir(root / 'nbs')
    import nbdev.test

    import xar_lab
    assert Path(xar_lab.__file__).is_relative_to(root), f'{xar_lab.__file__} is not the copy'
    passed, _ = nbdev.test.test_nb(root / notebooks(name)[0].relative_to(ROOT), skip_flags=['notest', 'slow'])
    sys.stderr.flush()
    os._exit(not passed)


class Trial:
    "A run of a notebook in a copy of its own, with one slip or none."

    def __init__(self, master, name, slip=None, seconds=600.):
        self.name, self.slip, self.started = name, slip, time.monotonic()
        self.root, self.until = Path(tempfile.mkdtemp(prefix='mutant-')) / 'project', self.started + seconds
        shutil.copytree(master, self.root)
        if slip: make_slip(self.root, name, *slip[1:])
        self.process = multiprocessing.get_context('fork').Process(target=run_notebook, args=(self.root, name))
        self.process.start()

    def end(self):
        "None while it runs; then 'passed', 'failed' or 'timeout', and the last line that it said."
        late = time.monotonic() > self.until
        if self.process.is_alive() and not late: return None
        with contextlib.suppress(ProcessLookupError): os.killpg(self.process.pid, signal.SIGKILL)   # its workers, too
        self.process.join()
        self.seconds = time.monotonic() - self.started
        said = (self.root / 'said').read_text(errors='replace').strip().splitlines()
        shutil.rmtree(self.root.parent, ignore_errors=True)
        ended = 'timeout' if late else 'failed' if self.process.exitcode else 'passed'
        why = [line for line in said if re.match(r'(\w+\.)*\w*(Error|Exception|Interrupt|Expired|Exit|Limit)\b', line)]
        return ended, (why or said or [''])[-1][:160]


def run_all(trials, jobs):
    "Start trials, so many at a time; yields each with how it ended."
    running, waiting = [], list(trials)
    while running or waiting:
        while waiting and len(running) < jobs: running.append(waiting.pop(0)())
        for trial in list(running):
            if ended := trial.end():
                running.remove(trial)
                yield trial, *ended
        time.sleep(.05)


def prepare(folder):
    "A copy of the project with compiled modules, and what notebooks import in this process."
    for name in HEAVY: importlib.import_module(name)
    os.environ['PYTHONDONTWRITEBYTECODE'] = '1'                # what is changed twice in a second would look unchanged
    sys.dont_write_bytecode = True
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))


def table(results):
    "Caught slips by notebook, and those that were not, by name."
    lines = ['| notebook | caught | slips | seconds |', '|---|---|---|---|']
    for name in {name: None for name, *_ in results}:
        mine = [r for r in results if r[0] == name]
        caught, seconds = sum(ended != 'passed' for _, _, ended, _ in mine), sum(r[3] for r in mine)
        lines.append(f'| {name} | {caught} | {len(mine)} | {seconds:.0f} |')
    late = [f'{name}: {slip[0]}' for name, slip, ended, _ in results if ended == 'timeout']
    missed = [f'{name}: {slip[0]}' for name, slip, ended, _ in results if ended == 'passed']
    for title, names in (('caught by the time limit', late), ('not caught', missed)):
        if names: lines += ['', f'{title}:', *(f'- {name}' for name in names)]
    return '\n'.join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', metavar='NOTEBOOK', help='slips of these notebooks')
    parser.add_argument('--slips', type=Path, help='a list of your own')
    parser.add_argument('--list', action='store_true', help='show the slips and end')
    parser.add_argument('--jobs', type=int, default=1, help='notebooks at a time')
    options = parser.parse_args(argv)
    listed = read_slips(options.slips) if options.slips else SLIPS
    if unknown := set(options.only or ()) - listed.keys():
        sys.exit(f"no slips of {', '.join(unknown)}; known: {', '.join(listed)}")
    slips = [(name, slip) for name in options.only or listed for slip in listed[name]]
    if options.list:
        print('\n'.join(f'{name}: {what}' for name, (what, *_) in slips))
        return
    absent = [f'{name}: {slip[0]}' for name, slip in slips if places_of(name, slip[1]) != (1, 1)]
    if absent: sys.exit('these slips do not apply, their text is not there once:\n' + '\n'.join(absent))

    started, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
        master = prepare(Path(folder) / 'project')
        for name in dict(slips):
            [(whole, ended, why)] = run_all([lambda: Trial(master, name)], 1)
            if ended != 'passed': sys.exit(f'{name} {ended} without a slip: {why}')
            print(f'{name} passes in {whole.seconds:.1f} s', flush=True)
            limit = 60 + 3 * whole.seconds
            trials = [lambda slip=slip: Trial(master, name, slip, limit) for n, slip in slips if n == name]
            for trial, ended, why in run_all(trials, options.jobs):
                results.append((name, trial.slip, ended, trial.seconds))
                verdict = 'NOT CAUGHT' if ended == 'passed' else ended
                print(f'  {trial.slip[0]}: {verdict} in {trial.seconds:.1f} s: {why}', flush=True)
    share = sum(ended != 'passed' for _, _, ended, _ in results) / len(results)
    minutes = (time.monotonic() - started) / 60
    print(f'\n{table(results)}\n\n{share:.1%} of {len(results)} slips caught, {minutes:.0f} minutes')
    sys.exit(share < ENOUGH)


if __name__ == '__main__': main()
