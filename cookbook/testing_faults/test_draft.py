"""A test of `draft.py`: without a fault, and under several."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from draft import Draft

from lmstudio_integrations.emulator import Emulator

FAULTS = ("drop", "half_close", "corrupt", "unknown_packet", "stall", "crash")
ARTICLE = "The ferry is late again\n" + 1000 * "It is not here yet. "


@pytest.fixture(params=[None, *FAULTS])
def lmstudio_models(request: pytest.FixtureRequest) -> list[dict[str, object]]:
    """A model that writes a long article; a fault happens once, in the headline."""
    fault = {"fault": request.param, "packet": 4}
    rules = [
        {"when": {"times": 1}, "then": [fault, {"text": ARTICLE}]},
        {"then": [{"text": ARTICLE}]},
    ]
    if request.param is None:
        del rules[0]
    return [{"key": "qwen/qwen3-4b", "rules": rules, "tokens_per_second": 50}]


@pytest.fixture
def draft(lmstudio_emulator: Emulator) -> Iterator[Draft]:
    """An article; at the end, its model must have stopped."""
    with closing(Draft(lmstudio_emulator.address, wait=0.5)) as draft:
        yield draft
    lmstudio_emulator.wait_for(
        lambda: all(
            each.state == "ended" for each in lmstudio_emulator.predictions
        ),
        timeout=5,
    )


def test_there_is_a_headline(draft: Draft) -> None:
    assert draft.headline("the ferry") == "The ferry is late again"
