"""Writes `docs/internals/evidence.md`: what was observed, and which observation asks for which rule."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from textwrap import fill
from typing import NamedTuple

from lmstudio_integrations._support.text import counted
from tools import ROOT
from tools.evidence.causes import count_causes
from tools.evidence.defaults import DEFAULTS
from tools.evidence.rows import OBSERVATIONS, Row, read

PAGE = ROOT / "docs/internals/evidence.md"

_VERSION = re.compile(r"(?:Bionic )?\d+\.\d+\.\d+(?![\dx]|\+,)")
_CODE = re.compile(r"(`.*`)")
_SERIES = re.compile(r"(Bionic|\d+\.\d+)")

_HEAD = """\
# Evidence

No one here has run LM Studio. What this package knows of real servers and models is what others have published. Each
observation has its source, date and version in `tests/real/`, and is played to this package there.

A rule that recovers something should have an observation that asks for it. For what models write, those outputs count
from which something else is read without the rule. For what happens in a server or in time,
`tools/evidence/defaults.py` names observations. `python -m tools.evidence` writes this page, which names the rules
without one; with `--names` it prints all rules and their observations.
"""


class Numbers(NamedTuple):
    """How many observations of servers there are, and of how many versions and sources."""

    observations: int
    versions: int
    versions_of_bionic: int
    sources: int


def version_of(row: Row) -> str | None:
    """Return the application's version, without its build; `None` if it is inferred, or not known exactly."""
    match = _VERSION.match(row.version)
    return None if match is None else match.group()


def numbers_of(rows: Sequence[Row]) -> Numbers:
    """Return the numbers of some observations."""
    versions = {version for row in rows if (version := version_of(row)) is not None}
    of_bionic = sum(each.startswith("Bionic") for each in versions)
    sources = {row.source.partition(" (")[0] for row in rows}
    return Numbers(len(rows), len(versions), of_bionic, len(sources))


def sentence() -> str:
    """Return what the pages for users say of the observations of servers."""
    found = numbers_of(read(OBSERVATIONS))
    return f"{found.observations} observations of {found.versions} versions"


def render_page() -> str:
    """Return the page."""
    servers = read(OBSERVATIONS)
    return "\n".join((_HEAD, *_of_servers(servers), *_of_errors(servers), *_of_models(), *_of_defaults()))


def names_of_all() -> Iterator[str]:
    """Yield each rule of the page with the names of its observations."""
    from tools.evidence.rules import all_rules

    causes, _ = count_causes(read(OBSERVATIONS))
    yield from (f"{cause.kind.__name__}, {cause.seen}: {', '.join(ids)}" for cause, ids in causes)
    yield from (f"{rule.part}, {rule.name}: {', '.join(rule.asked_for_by())}" for rule in all_rules())
    yield from (f"{each.what}: {', '.join(each.seen)}" for each in DEFAULTS)


def _of_servers(rows: Sequence[Row]) -> Iterator[str]:
    found = numbers_of(rows)
    changed = sum(row.quality != "raw" for row in rows)
    yield "## What servers said\n"
    yield _wrapped(
        f"{sentence()} in {found.sources} sources; {found.versions_of_bionic} of the versions are of Bionic. "
        f"{changed} observations were shortened, or rebuilt after a description. Versions that are only inferred from "
        "the date are not counted."
    )
    yield _listed("By version", sorted(Counter(map(_series, rows)).items()))


def _series(row: Row) -> str:
    """Return the first two numbers of the version that a row is of."""
    match = _SERIES.match(row.version)
    return "unknown" if match is None else match[1]


def _of_errors(rows: Sequence[Row]) -> Iterator[str]:
    causes, unknown = count_causes(rows)
    yield "## Causes of errors\n"
    yield _wrapped(
        "The words of a server decide which error it is, unless it sends a code: the first known cause whose words "
        f"are there. {counted(len(unknown), 'error')} above have no known cause; the endpoint gives their class."
    )
    errors: dict[str, list[tuple[str, int]]] = {}
    for cause, ids in causes:
        if ids:
            errors.setdefault(cause.kind.__name__, []).append((cause.seen.removeprefix("LM Studio "), len(ids)))
    lines = [(f"`{name}`", "; ".join(f"{seen}: {count}" for seen, count in known)) for name, known in errors.items()]
    yield _table(("error", "seen in LM Studio, with the number of observations"), lines)
    unseen = (cause for cause, ids in causes if not ids)
    yield from _without(f"`{each.kind.__name__}` ({each.seen.removeprefix('LM Studio ')})" for each in unseen)


def _of_models() -> Iterator[str]:
    from tools.evidence.outputs import all_outputs
    from tools.evidence.rules import ABOUT, all_rules

    outputs = all_outputs()
    yield "## What models wrote\n"
    folders = "`tests/real/` and `tests/client/predictions/calls_in_text/`"
    yield _wrapped(f"{len(outputs)} outputs, in {folders}.")
    yield _listed("By kind", Counter(row.kind for row in outputs).most_common())
    measured = [(rule, len(rule.asked_for_by())) for rule in all_rules()]
    for part, rules in groupby(measured, lambda each: each[0].part):
        known = list(rules)
        yield f"## {part}\n"
        yield _wrapped(f"{ABOUT[part]} {_asked_for([count for _, count in known], 'output')}")
        yield from _without(rule.name for rule, count in known if not count)


def _of_defaults() -> Iterator[str]:
    yield "## Retries, and defaults against silence\n"
    yield _wrapped(_asked_for([len(each.seen) for each in DEFAULTS], "observation"))
    yield from _without(each.what for each in DEFAULTS if not each.seen)


def _asked_for(counts: Sequence[int], what: str) -> str:
    """Return how many rules have something that asks for them."""
    asked_for = [count for count in counts if count]
    return (
        f"{len(asked_for)} of {counted(len(counts), 'rule')} have 1 to {max(asked_for)} {what}s, {sum(counts)} in all."
    )


def _without(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of rules without an observation; those that differ only in their code share a line."""
    known = list(names)
    if known:
        groups: dict[tuple[str, str], list[str]] = {}
        for name in known:
            before, code, after = (*_CODE.split(name, maxsplit=1), "", "")[:3]
            groups.setdefault((before, after), []).append(code)
        yield f"{counted(len(known), 'rule')} without an observation:\n"
        yield "".join(f"- {before}{'; '.join(codes)}{after}\n" for (before, after), codes in groups.items())


def _listed(what: str, counts: Iterable[tuple[str, int]]) -> str:
    return _wrapped(f"{what}: {'; '.join(f'{name}: {count}' for name, count in counts)}.")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _wrapped(text: str) -> str:
    return fill(text, 120) + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)
