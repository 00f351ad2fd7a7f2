"""The base of all types: both spellings in, one spelling out."""

import json
from typing import Any, Literal

import pytest

from lmstudio_integrations.types._wire_model import TaggedModel, WireModel


class Point(WireModel):
    """A value for these tests."""

    x_axis: int
    label_text: str | None = None
    device_identifier: str | None = None
    score: float = 0.0
    anything: Any = None


class Tagged(TaggedModel):
    """A member of a union for these tests."""

    type: Literal["point"] = "point"
    x_axis: int = 0


@pytest.mark.parametrize("data", [{"xAxis": 1}, {"x_axis": 1}, {"xAxis": 1, "unknown": 2}])
def test_both_spellings_are_read_and_unknown_fields_skipped(data: dict[str, int]) -> None:
    assert Point.from_dict(data) == Point(x_axis=1)
    assert Point.from_dict(data).to_dict() == {"xAxis": 1}


def test_null_is_written_only_where_the_wire_knows_it() -> None:
    assert Point.from_dict({"xAxis": 1, "labelText": None, "deviceIdentifier": None}).to_dict() == {
        "xAxis": 1,
        "deviceIdentifier": None,
    }


def test_the_tag_is_written_though_nobody_set_it() -> None:
    assert Tagged().to_dict() == {"type": "point"}


@pytest.mark.parametrize("text", ["a", "😀", "\ud83d", 'q"\n'])
def test_any_text_becomes_json(text: str) -> None:
    written = Point(x_axis=1, label_text=text).to_json()
    assert json.loads(written) == {"xAxis": 1, "labelText": text}
    assert written.encode()
    assert Point(x_axis=1, anything={text: 1}).to_dict() == {"xAxis": 1, "anything": {text: 1}}


@pytest.mark.parametrize("text", ["a", "\ud83d"])
@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_infinity_and_nan_become_null_beside_any_text(text: str, number: float) -> None:
    written = Point(x_axis=1, label_text=text, score=number, anything=[number]).to_json()
    assert json.loads(written) == {"xAxis": 1, "labelText": text, "score": None, "anything": [None]}
