"""The whole card of a good model, and what is found when a server becomes worse in one way."""

from typing import Any

import pytest

from lmstudio_integrations import Card, Client
from lmstudio_integrations.client.certify.run import all_rows, tokens_of
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.cards import RowName
from tests.support.certified.good import KEY, REGRESSIONS, ChangedEngine, entry

pytestmark = pytest.mark.leaf("calls_in_text", "decisions")

UNTIMED: list[RowName] = [row.name for row in all_rows() if "llm" in row.kinds and row.name != "speed"]
"""The speed of a machine that runs tests says nothing."""


def certify(engine: ChangedEngine | None, rows: list[RowName], against: Card | None = None, **model: Any) -> Card:
    engines = {"scripted": engine} if engine else None
    model = {"tokens_per_second": None, **model}
    with Emulator([entry(**model)], engines=engines) as server, Client(server.address) as client:
        return client.certify(KEY, rows=rows, against=against)


@pytest.fixture(scope="module")
def good() -> Card:
    """The card of the good model."""
    return certify(None, UNTIMED)


@pytest.mark.slow
def test_a_good_model_passes_every_row_within_the_tokens_that_were_promised(good: Card) -> None:
    assert [(each.name, observation) for each in good.rows for observation in each.failures] == []
    assert [row.name for row in good.rows if row.missing] == ["reranking"]
    assert [row.name for row in good.rows if row.unasked] == []
    for row in all_rows():  # a part that is compared on its own is asked again on its own
        observed = {each.part for card_row in good.rows if card_row.name == row.name for each in card_row.observations}
        assert not row.apart or observed <= {case.part for case in row.cases}
    prompt, predicted = tokens_of(UNTIMED, quick=False)
    assert 0 < sum(row.prompt_tokens for row in good.rows) <= prompt
    assert 0 < sum(row.predicted_tokens for row in good.rows) <= predicted


@pytest.mark.exhaustive
def test_a_second_card_of_the_same_model_shows_no_change(good: Card) -> None:
    again = certify(None, UNTIMED, against=good)
    assert again.changes is not None
    assert {change.verdict for change in again.changes} == {"same"}
    assert again.model_changes == ()


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", [name for name, each in REGRESSIONS.items() if each.row != "speed"])
def test_what_became_worse_is_found_in_its_row(name: str, good: Card) -> None:
    regression = REGRESSIONS[name]
    rows: list[RowName] = [row for row in UNTIMED if row == regression.row]
    card = certify(regression.engine, rows, good, **regression.model)
    found = [change for change in card.changes or () if change.verdict not in {"same", "noise"}]
    assert found
    assert all(change.repetitions > 1 for change in found)
    assert card.worse or name == "the chat template drops thoughts"
