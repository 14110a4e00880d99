"The list of slips fits the code; whether tests see them is shown by `python tests/mutants.py` (`make test-slow`)."
import re
from functools import cache

import pytest
from gates import cells, notebooks
from mutants import ENOUGH, SLIPS, places_of, table

@cache
def exported(name):
    return [source for _, source, is_exported in cells(notebooks(name)[0]) if is_exported]


@pytest.mark.parametrize('name', SLIPS)
def test_every_slip_applies_once_and_can_be_compiled(name):
    for what, old, new in SLIPS[name]:
        assert old != new, what
        assert places_of(name, old) == (1, 1), what
        [source] = [source for source in exported(name) if old in source]
        compile(source.replace(old, new), what, 'exec')


def test_slips_are_many_and_each_is_there_once():
    assert sum(map(len, SLIPS.values())) >= 120 and ENOUGH == .95
    for name, slips in SLIPS.items():
        assert len({what for what, *_ in slips}) == len({(old, new) for _, old, new in slips}) == len(slips), name


def test_every_module_of_the_library_has_slips():
    numbered = {path.stem for path in notebooks() if re.match(r'\d\d_', path.name)}
    assert numbered - {'46_entity_explorer'} <= SLIPS.keys()


def test_the_table_names_what_was_not_caught():
    seen, unseen = ('seen', 'a', 'b'), ('unseen', 'a', 'c')
    text = table([('06_model', seen, 'failed', 1.), ('06_model', unseen, 'passed', 2.),
                  ('07_solvers', seen, 'timeout', 3.)])
    assert '| 06_model | 1 | 2 | 3 |' in text and '| 07_solvers | 1 | 1 | 3 |' in text
    assert text.endswith('caught by the time limit:\n- 07_solvers: seen\n\nnot caught:\n- 06_model: unseen')
