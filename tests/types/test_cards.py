"""The card as JSON and as text, and the files that are made of it."""

import pytest

from lmstudio_integrations import Card, CardModel, CardRow, Change, Observation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.cards import TOO_FEW
from tools.bundled_card import CARD, PAGE, SCHEMA, page_text, schema_text

MODEL = CardModel(key="a", identifier="a", context_length=4096, server="0.4.20 (build 1)")
AGAIN = "run `python -m tools.bundled_card`"


def card(*rows: CardRow, **members: object) -> Card:
    return Card.model_validate(
        {
            "measured_at": "2026-11-26T12:00:00+00:00",
            "client": "1",
            "model": MODEL,
            "complete": True,
            "rows": rows,
            **members,
        }
    )


def verdict(case: str, score: float) -> Observation:
    return Observation(case=case, kind="verdict", outcome="right" if score else "wrong", score=score)


def test_the_schema_and_the_page_are_those_of_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), AGAIN
    assert PAGE.read_text(encoding="utf-8") == page_text(), AGAIN
    assert Card.read(CARD).complete


def test_a_row_names_its_failures_and_a_long_list_is_cut() -> None:
    row = CardRow(
        name="tools",
        summary="0 of 12 right",
        advice="set it",
        observations=tuple(verdict(f"one/{n}", 0) for n in range(12)),
    )
    assert str(card(row)).split("\n")[1:] == [
        "tools      0 of 12 right",
        f"           failed: {', '.join(f'one/{n}' for n in range(8))} and 4 more",
        "           advice: set it",
    ]


def test_what_was_not_asked_is_said() -> None:
    rows = (
        CardRow(name="tools", summary="1 of 1", unasked=39),
        CardRow(name="vision", missing="the model sees no images"),
    )
    assert str(card(*rows, complete=False)).split("\n")[1:] == [
        "It was interrupted; the rows so far:",
        "tools      1 of 1",
        "           39 questions not asked",
        "vision     the model sees no images",
    ]


def test_only_what_changed_is_shown_beside_an_earlier_card() -> None:
    changes = [
        Change(row="tools", kind="verdict", verdict="same", before="2 of 2", now="2 of 2", smallest="1 of 2"),
        Change(row="speed", part="alone", kind="number", verdict="worse", before="40", now="20", repetitions=4),
        Change(row="window", part="loaded", kind="fact", verdict="changed", before="1", now="2", repetitions=2),
        Change(
            row="honesty", part="seed", kind="verdict", verdict="unclear", before="1 of 1", now="0", smallest=TOO_FEW
        ),
    ]
    text = str(card(CardRow(name="tools"), changes=changes, model_changes=("server: 1, now 2",)))
    assert text.split("\n")[1:] == [
        "differs    server: 1, now 2",
        "worse      speed alone: 40, now 20 (measured 4 times)",
        "changed    window loaded: 1, now 2 (measured 2 times)",
        "unclear    honesty seed: 1 of 1, now 0",
        "same       tools",
        "not seen   honesty seed: the earlier card has too few questions of it",
        "seen from  tools 1 of 2; any other part if all of it fails; speeds a factor of 1.25",
    ]


def test_a_share_of_a_row_is_a_number_and_a_row_that_was_not_measured_an_error() -> None:
    measured = card(
        CardRow(name="tools", observations=(verdict("a", 1), verdict("b", 0.5), verdict("c", 0), verdict("d", 1))),
        CardRow(name="vision", missing="the model sees no images"),
    )
    assert measured.row("tools").share == 0.5
    assert measured.model_copy(update={"rows": ()}).rows == ()
    with pytest.raises(LMStudioValueError, match="vision was not measured: the model sees no images"):
        _ = measured.row("vision").share
    with pytest.raises(LMStudioValueError, match="no row 'honesty'; it has tools, vision"):
        measured.row("honesty")


def test_two_instances_differ_by_what_was_loaded_and_not_by_their_names() -> None:
    other = MODEL.model_copy(update={"identifier": "b", "quantization": "Q8_0", "load_config": {"x": 1}})
    assert other.differences(MODEL) == ["quantization: None, now Q8_0", "x: None, now 1"]
    assert MODEL.differences(MODEL.model_copy(update={"identifier": "b"})) == []
