"""Bad input of every kind, thousands of ways: does each end in one line before work, or is it handled?

    python tests/fuzz.py [inputs, default 600] [seed, default 0]
    python tests/fuzz.py --only generate

Half of the inputs are the cases that once went wrong (fuzz_parameters.py, fuzz_files.py), the others are drawn by
hypothesis: values for parameters, and damage to files. Each is tried in a process and a folder of its own, and ends in
one of six ways; only the first two are accepted:

refused   a `raise` of xar_lab itself, one line of at most 1500 characters that names the parameter, the value or
          the file, before anything was trained, or drawn beyond one batch
handled   a result that the case's own check finds right
internal  any other exception: of torch, json, numpy, or of xar_lab but not raised on purpose; several lines;
          nothing that says what was bad; a crash, no end within a minute, or more than 6 GB of memory
late      an error on purpose, but after the work
wrong     a result that the case's own check finds wrong
lost      a file that is not ours was changed, removed or added, inside the folder or beside it
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch: a pool of threads does not survive a fork

import argparse  # noqa: E402
import collections  # noqa: E402
import contextlib  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import linecache  # noqa: E402
import re  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import xar_lab  # noqa: E402

OUTCOMES = ('refused', 'handled', 'internal', 'late', 'wrong', 'lost')
SECONDS, MEMORY, LONGEST = 60, 6 * 2**30, 1500  # of one input; of its message, in characters
LIBRARY = str(Path(xar_lab.__file__).parent)
ON_PURPOSE = (ValueError, OSError, ImportError)  # MemoryError, TypeError, KeyError, … are no answers


@dataclass
class Case:
    "One input."

    family: str  # what is attacked
    what: str  # the input, in words
    call: Callable[[Path], object]  # in a process and a folder of its own
    names: tuple[str, ...]  # a message must contain one of these
    wrong: Callable = lambda result, folder: None  # (result, folder) -> what is wrong with a result; None: nothing
    ours: tuple[str, ...] = ()  # what may be written in the folder: names of files and folders
    values: tuple[str, ...] = ()  # or one of these, as a word of its own


def snapshot(folder: Path, leave_out=()) -> dict:
    "What is in a folder: path -> kind and content."
    found = {}
    for here, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(here, name)
            inside = os.path.relpath(path, os.fsencode(folder))
            if inside.split(b'/')[0].decode(errors='replace') in leave_out:
                continue
            if os.path.islink(path):
                found[inside] = os.readlink(path)
            elif os.path.isfile(path):
                found[inside] = hashlib.sha256(open(path, 'rb').read()).hexdigest()
            else:
                found[inside] = 'folder' if os.path.isdir(path) else 'special'
    return found


class Work:
    "Counts what was done: steps of an optimizer, and batches drawn beyond the first."

    def __init__(self):
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from xar_lab.model import XAR

        self.batches, self.steps = 0, 0

        def stepped(*ignored):
            self.steps += 1

        register_optimizer_step_post_hook(stepped)
        new_cache = XAR.new_cache

        def opened(model, *args):
            self.batches += 1
            return new_cache(model, *args)

        XAR.new_cache = opened

    @property
    def done(self) -> bool:
        return self.steps > 0 or self.batches > 1


def on_purpose(error: BaseException) -> str | None:
    "Why an error is none that was raised on purpose by xar_lab, in one line; None: it is."
    if not isinstance(error, ON_PURPOSE):
        return f'{type(error).__name__}: {str(error)[:200]}'
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno)
    lines = range(last.lineno, (last.end_lineno or last.lineno) + 1)
    raised = any('raise ' in linecache.getline(last.filename, n) for n in lines)
    if not last.filename.startswith(LIBRARY) or not raised:
        where = f'{Path(last.filename).name}:{last.lineno} ({line.strip()[:60]})'
        return f'{type(error).__name__} at {where}: {str(error)[:200]}'
    text = str(error)
    if not text.strip() or '\n' in text or len(text) > LONGEST:
        return f'not one short line: {text[:200]!r}'
    return None


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    "The outcome of a case in this process, and what to say of it."
    before, work = snapshot(folder.parent, (folder.name,)), Work()
    inside = snapshot(folder, case.ours)
    try:
        result, error = case.call(folder), None
    except BaseException as e:
        result, error = None, e
    after = snapshot(folder.parent, (folder.name,))
    if after != before:
        return 'lost', f'beside the folder: {differing(before, after)}'
    if (now := snapshot(folder, case.ours)) != inside:
        return 'lost', f'in the folder: {differing(inside, now)}'
    if error is None:
        try:
            fault = str(case.wrong(result, folder) or '')
        except Exception as e:
            return 'internal', f'taken, and then {type(e).__name__}: {str(e)[:200]}'
        return ('lost' if fault.startswith('lost') else 'wrong', fault[:300]) if fault else ('handled', '')
    if why := on_purpose(error):
        return 'internal', why
    text = str(error)
    said = any(name in text for name in case.names) or any(
        re.search(rf'(?<!\w){re.escape(v)}(?!\w)', text) for v in case.values
    )
    if not said:
        return 'internal', f'names none of {case.names[:4]}: {text[:200]}'
    if work.done:
        return 'late', text
    return 'refused', text


def differing(before: dict, after: dict) -> str:
    return ', '.join(sorted(os.fsdecode(k) for k in before.keys() | after if before.get(k) != after.get(k))[:4])


def in_a_process(case: Case, folder: Path) -> tuple[str, str]:
    "The outcome of a case, whatever it does to its process."
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(quiet, number)
            resource.setrlimit(resource.RLIMIT_AS, (used() + MEMORY, resource.RLIM_INFINITY))
            os.chdir(folder)
            os.write(write, json.dumps(attempt(case, folder)).encode(errors='replace')[:60_000])
        except BaseException as e:
            os.write(
                write, json.dumps(('internal', f'the fuzzer itself: {traceback.format_exc()[-300:]} {e!r}')).encode()
            )
        finally:
            os._exit(0)
    os.close(write)
    answer, until = b'', time.monotonic() + SECONDS
    while (left := until - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        if not (part := os.read(read, 65536)):
            break
        answer += part
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer:
        return tuple(json.loads(answer))
    return 'internal', f'no end within {SECONDS} s' if time.monotonic() >= until else f'crashed with status {status}'


def used() -> int:
    "Address space of this process, in bytes."
    return int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()


class Fuzzer:
    "Tries cases, and counts how they end."

    def __init__(self, here: Path, tell: Callable = partial(print, flush=True)):
        self.here, self.tell, self.counts, self.failures, self.tried = here, tell, collections.Counter(), [], 0
        self.families = collections.defaultdict(collections.Counter)

    def prepare(self, folder: Path, case: Case):
        "The folder of a case, and what lies beside it."
        folder.mkdir(parents=True)
        (folder.parent / 'beside').mkdir()
        (folder.parent / 'beside' / 'thesis.txt').write_text('three years of work')

    def __call__(self, case: Case, before: Callable[[Path], object] | None = None) -> str:
        "Try a case; `before` makes what is in its folder."
        place = self.here / f'{self.tried:05d}'
        folder = place / 'work'
        self.prepare(folder, case)
        if before:
            before(folder)
        started = time.monotonic()
        outcome, said = in_a_process(case, folder)
        seconds = time.monotonic() - started
        self.tried += 1
        self.counts[outcome] += 1
        self.families[case.family][outcome] += 1
        self.families[case.family]['seconds'] += seconds
        if outcome not in ('refused', 'handled'):
            self.failures.append((outcome, case.family, case.what, said))
            self.tell(f'{outcome:8s} {case.family}: {case.what[:160]} -> {said}')
        shutil.rmtree(place, ignore_errors=True)
        return outcome

    def table(self) -> str:
        rows = [f'{"":22s}' + ''.join(f'{name:>10s}' for name in OUTCOMES) + '   seconds']
        for family, counts in sorted(self.families.items()):
            rows.append(
                f'{family:22s}' + ''.join(f'{counts[name]:10d}' for name in OUTCOMES) + f'{counts["seconds"]:10.0f}'
            )
        return '\n'.join([*rows, f'{"all":22s}' + ''.join(f'{self.counts[name]:10d}' for name in OUTCOMES)])


def fuzz(inputs: int, seed: int, only: str = '', tell: Callable = partial(print, flush=True)) -> Fuzzer:
    "Try the known cases, then so many more that hypothesis draws."
    import random

    import fuzz_files
    import fuzz_parameters
    from hypothesis import HealthCheck, Phase, given, seed as seeded, settings

    def wanted(family): return not only or any(part in family for part in only.split(','))

    with tempfile.TemporaryDirectory() as name:
        fuzzer, prepared = Fuzzer(Path(name) / 'cases', tell), fuzz_files.prepare(Path(name) / 'whole', wanted)
        known = [c for part in (fuzz_parameters, fuzz_files) for c in part.known(prepared)]
        drawn = {k: v for part in (fuzz_parameters, fuzz_files) for k, v in part.strategies(prepared).items()}
        known = [c for c in known if wanted(c[0].family)]
        if len(known) > inputs // 2:
            known = random.Random(seed).sample(known, inputs // 2)
        for case, before in known:
            fuzzer(case, before)
        drawn = {family: chosen for family, chosen in drawn.items() if wanted(family)}
        weights = sum(weight for weight, _ in drawn.values())
        left = inputs - len(known)
        for weight, cases in drawn.values():

            @seeded(seed)
            @settings(
                max_examples=max(1, round(left * weight / weights)), database=None, deadline=None,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def try_one(chosen):
                fuzzer(*chosen)

            try_one()
        return fuzzer


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    reader = argparse.ArgumentParser()
    reader.add_argument('inputs', type=int, nargs='?', default=600)
    reader.add_argument('seed', type=int, nargs='?', default=0)
    reader.add_argument('--only', default='', help='families whose name contains this, or one of these: layout,flow')
    given_ = reader.parse_args()
    import fuzz as module  # not __main__: cases are of its class

    done = module.fuzz(given_.inputs, given_.seed, given_.only)
    print(done.table())
    sys.exit(f'{len(done.failures)} inputs ended badly' if done.failures else None)
