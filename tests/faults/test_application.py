"""The application of the page on faults passes under faults of every phase. Its bugs: `tests/test_pytest_plugin.py`."""

import importlib
from contextlib import closing
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.faults.faults import FAULTS, FaultProxy


@pytest.fixture
def _no_time_passes_before_a_retry() -> None:
    """Let time pass, as it does for users."""


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("fault", [*FAULTS][::6])
def test_the_application_passes_under_a_fault(fault: str) -> None:
    draft: Any = importlib.import_module("cookbook.testing_faults.draft")
    rules = [{"then": [{"text": "The ferry is late again\nIt left the harbor an hour after noon."}]}]
    with (
        Emulator([{"key": "qwen/qwen3-4b", "rules": rules}]) as server,
        FaultProxy(server.address, fault) as proxy,
    ):
        with closing(draft.Draft(proxy.address, wait=0.5)) as article:
            assert article.headline("the ferry").startswith("The ferry")
            assert proxy.has_happened()
        assert proxy.unfinished() == []
