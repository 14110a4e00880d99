import os

import pytest


@pytest.fixture
def need():
    "need(condition, why): skip without it; with XAR_LAB_NO_SKIP set (continuous integration) fail instead."
    def need(condition, why):
        if condition: return
        if os.environ.get('XAR_LAB_NO_SKIP'): pytest.fail(why)
        pytest.skip(why)
    return need
