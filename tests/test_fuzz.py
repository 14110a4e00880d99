"Bad input ends in one line before work, or is handled: a sample of fuzz.py; the whole is in `make test-slow`."
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / 'fuzz.py'


def ended(*words):
    "The table of a run of the fuzzer in a process of its own, which forks."
    done = subprocess.run([sys.executable, FUZZ, *map(str, words)], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


QUICK = 'layout,flow,codec,network,steps,generate,classifier,statistics,samples (files)'


@pytest.mark.slow
def test_a_sample_of_bad_input(): ended(100, 0, '--only', QUICK)


@pytest.mark.slow
def test_a_thousand_bad_inputs(): ended(1000, 0)
