"""A pytest plugin for `tools.mutants`: tells coverage which test function runs, here and in the processes it starts.

Coverage's own `dynamic_context` does not see tests that are coroutines. It also stores how long each function takes.
"""

import json
import os
from collections import defaultdict
from collections.abc import Generator

import coverage
import pytest

from tools.mutants import SECONDS

seconds: defaultdict[str, float] = defaultdict(float)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give what runs the name of the test function, without its parameters."""
    name = item.nodeid.partition("[")[0]
    os.environ["RUNNING_TEST"] = name
    if measured := coverage.Coverage.current():
        measured.switch_context(name)
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds."""
    seconds[report.nodeid.partition("[")[0]] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the seconds, unless this is one of several workers."""
    if not hasattr(session.config, "workerinput"):
        SECONDS.write_text(json.dumps(seconds))
