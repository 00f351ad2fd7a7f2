"""A pytest plugin for `tools.mutants`: tells coverage which test function runs, here and in the processes it starts.

Coverage's own `dynamic_context` does not see tests that are coroutines.
"""

import os
from collections.abc import Generator

import coverage
import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give what runs the name of the test function, without its parameters."""
    name = item.nodeid.partition("[")[0]
    os.environ["RUNNING_TEST"] = name
    if measured := coverage.Coverage.current():
        measured.switch_context(name)
    return (yield)
