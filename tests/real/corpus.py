"""What models wrote, line by line in `outputs.jsonl`: the form as it was seen, with names and values of our own.

Each row has an `id`, the public `source` and `date`, the `family` of the model, a `kind`, a `payload`, what to
`expect`, and a `quality`: `raw` if a user captured it, `rebuilt` after a description, `fixture` from the tests of a
parser, which write what chat templates teach. A row with a `policy` is decided otherwise here than where it was seen.
A cut call says which tools were `meant`, as far as it names them.

kind         | payload      | expect
-------------|--------------|--------------------------------------------------------
`call`       | text, tools  | the calls, and the text before them where that is known
`cut`        | text, tools  | no call: it is incomplete, or what was meant is a guess
`not-call`   | text, tools  | no call, and the text as it is
`reasoning`  | text         | the text, and the reasoning before it
`structured` | text, schema | the value, or the error of whoever asks for it
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]

OUTPUTS: list[Row] = [
    json.loads(line) for line in (Path(__file__).parent / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
]


def of_kind(*kinds: str) -> list[Row]:
    """Return the rows of some kinds."""
    return [row for row in OUTPUTS if row["kind"] in kinds]


def parameters(rows: Iterable[Row]) -> list[Any]:
    """Return rows as parameters of a test, whose ids show what is decided otherwise."""
    return [pytest.param(row, id=", ".join([row["id"], *filter(None, [row.get("policy")])])) for row in rows]


def tools_of(row: Row) -> list[dict[str, Any]]:
    """Return the definitions of the tools that were offered, in wire form."""
    tools = [{"name": name, "parameters": schema} for name, schema in row["payload"].get("tools", {}).items()]
    return [{"type": "function", "function": tool} for tool in tools]


def calls_of(row: Row) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that are expected."""
    return [(call["name"], call["arguments"]) for call in row["expect"]["calls"]]


def pieces(text: str, size: int | None) -> list[str]:
    """Return a text in pieces of a size; `None` leaves it whole."""
    return [text] if size is None else [text[at : at + size] for at in range(0, len(text), size)]
