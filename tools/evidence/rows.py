"""The rows of the corpus: what a real server said, or a real model wrote; see `tests/real/README.md`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tools import ROOT

OBSERVATIONS = ROOT / "tests/real/observations.jsonl"
"""What servers said."""

OUTPUTS = ROOT / "tests/real/outputs.jsonl"
"""What models wrote."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One observation.

    Attributes:
        id: Its name, which no other row has.
        source: Where it is published: a repository and a number or a path, a page, or a machine.
        date: When it was seen: a day, a month, or a year.
        kind: What `payload` is.
        payload: The server's own words, or the text of the model with its tools.
        version: The version of the application, and further words; with an x if it is inferred from the date.
        channel: Where it was seen: SDK, HTTP, log, app, CLI.
        family: The family of the model that wrote it.
        expect: What comes of it.
        meant: The tools that a cut call was meant for.
        quality: `raw`, or how it was changed: `rebuilt` after a description, `fixture` of another parser.
        note: What else is known.
        policy: Why something else than `expect` comes of it here.
    """

    id: str
    source: str
    date: str
    kind: str
    payload: Any
    version: str = ""
    channel: str = ""
    family: str = ""
    expect: Mapping[str, Any] = field(default_factory=dict[str, Any])
    meant: Any = None
    quality: str = "raw"
    note: str = ""
    policy: str = ""

    def to_line(self) -> str:
        """Return the row as a line of a file, without what has its default."""
        defaults = {each.name: each.default for each in fields(self) if each.default is not MISSING} | {"expect": {}}
        members = {name: value for name, value in asdict(self).items() if value != defaults.get(name, MISSING)}
        return json.dumps(members, ensure_ascii=False) + "\n"


_REQUIRED = {each.name for each in fields(Row) if each.default is MISSING and each.default_factory is MISSING}


def read(path: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        ValueError: If a line is no row, or two rows have one name.
    """
    rows = [row_of(line, f"{path.name}:{number}") for number, line in enumerate(_lines(path), 1)]
    ids = [row.id for row in rows]
    if again := sorted({each for each in ids if ids.count(each) > 1}):
        raise ValueError(f"{path.name}: several rows have the id {', '.join(again)}; rename all but one")
    return rows


def row_of(line: str, where: str) -> Row:
    """Return the row of a line.

    Args:
        line: The line.
        where: Its place, for the error.

    Raises:
        ValueError: If it is no row.
    """
    members = json.loads(line)
    if missing := sorted(_REQUIRED - members.keys()):
        raise ValueError(f"{where} has no {', '.join(missing)}")
    if unknown := sorted(members.keys() - {each.name for each in fields(Row)}):
        raise ValueError(f"{where} has unknown members: {', '.join(unknown)}; tests/real/README.md lists all")
    if empty := sorted(name for name in _REQUIRED - {"payload"} if not members[name]):
        raise ValueError(f"{where}: {', '.join(empty)} must not be empty")
    return Row(**members)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows."""
    path.write_text("".join(row.to_line() for row in rows), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
