"""A test of `draft.py`: without a fault, and under each one."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from draft import Draft

from lmstudio_integrations.emulator import FaultProxy

TEXT = "The ferry is late again\nIt left the harbor an hour after noon."


@pytest.fixture(scope="session")
def lmstudio_models() -> list[dict[str, object]]:
    """One model, which always writes the same article."""
    rules = [{"then": [{"text": TEXT}]}]
    return [{"key": "qwen/qwen3-4b", "rules": rules}]


@pytest.fixture
def draft(lmstudio_faults: FaultProxy) -> Iterator[Draft]:
    """An article; the model may be silent for half a second."""
    with closing(Draft(lmstudio_faults.address, wait=0.5)) as draft:
        yield draft


@pytest.mark.lmstudio_faults(limit=10)
def test_there_is_a_headline(draft: Draft) -> None:
    assert draft.headline("the ferry").startswith("The ferry")
