"""This package makes of what real servers said what it should, row by row."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioError
from tests.real.players import fail_in_the_client, play
from tools.evidence.rows import OBSERVATIONS, Row, read, write

ROWS = read(OBSERVATIONS)


def one_each(rows: Iterable[Row], *, by_value: bool) -> list[Row]:
    """Return the first row of each kind and expectation, which differs by its values or by their names alone."""
    found: dict[Any, Row] = {}
    for row in rows:
        if row.expect and not row.policy:
            found.setdefault((row.kind, str(row.expect) if by_value else tuple(row.expect)), row)
    return list(found.values())


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [["wrong", {}]]
    return {"wrong": "wrong"} if isinstance(value, Mapping) else "wrong"


FAILURES = one_each((row for row in ROWS if row.kind in {"error-predict", "error-load"}), by_value=True)


def parameters(rows: Iterable[Row]) -> list[Any]:
    """Return rows as parameters of a test."""
    efforts = pytest.mark.leaf("efforts")
    return [pytest.param(row, id=row.id, marks=efforts if row.kind == "efforts" else ()) for row in rows]


@pytest.mark.parametrize("row", parameters(ROWS))
async def test_what_a_server_said_is_understood(row: Row) -> None:
    await play(row)


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.id)
async def test_a_call_of_the_whole_client_fails_as_the_server_said(row: Row) -> None:
    await fail_in_the_client(row)


@pytest.mark.parametrize("row", parameters(one_each(ROWS, by_value=False)))
async def test_each_expectation_is_compared_with_what_is_made_of_the_row(row: Row) -> None:
    for name, value in row.expect.items():
        wrong = replace(row, expect={**row.expect, name: changed(value)})
        with pytest.raises((AssertionError, LMStudioError)):
            await play(wrong)


async def test_a_policy_that_is_followed_no_more_is_noticed() -> None:
    row = next(row for row in ROWS if row.kind == "stats")
    with pytest.raises(pytest.fail.Exception):
        await play(replace(row, policy="statistics are not kept"))


@pytest.mark.parametrize("path", sorted(OBSERVATIONS.parent.glob("*.jsonl")), ids=lambda path: path.name)
def test_no_row_has_a_token_or_the_name_of_a_person(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"sk-lm-\w+|eyJ\w{20,}|hf_\w{20,}", text)
    assert not re.findall(r"[\w.]+@(?!example\.)[\w-]+\.(?:com|net|org|io|dev|ai)\b", text)
    assert set(re.findall(r"(?:/home/|/Users/|Users\\+)(\w\w+)", text)) <= {"user", "file"}


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"kind": None}, "rows.jsonl:1 has no kind"),
        ({"expected": {}}, "unknown members: expected"),
        ({"source": ""}, "source must not be empty"),
    ],
)
def test_a_line_that_is_no_row_is_rejected_with_its_number(members: dict[str, Any], says: str, tmp_path: Path) -> None:
    row = {"id": "fact-1", "source": "a page", "date": "2026", "kind": "fact", "payload": "words", **members}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({name: value for name, value in row.items() if value is not None}), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        read(path)


def test_rows_are_written_as_they_are_read_and_each_name_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write(path, ROWS)
    assert read(path) == ROWS
    write(path, [*ROWS, ROWS[0]])
    with pytest.raises(ValueError, match=f"several rows have the id {ROWS[0].id}"):
        read(path)
