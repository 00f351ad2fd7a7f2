"""Writes `docs/reliability.md` from the fault table: `python -m tests.faults.page`."""

from collections.abc import Iterator
from pathlib import Path

from tests.faults.model import WORKS, Fault, Outcome, Phase
from tests.faults.surfaces import SURFACES, Kind
from tests.faults.table import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

KEPT = "## Under load\n"
"""From this heading on, the page is written by hand."""

_HEAD = """\
# What happens when something goes wrong

Servers restart, laptops sleep, proxies lose connections. This page lists {count} faults and what each of them does to a
call. It is generated from the table in `tests/faults/`, which the tests run, row by row, on every interface of the
package: a proxy between the client and a server injects the fault, the call must end as the table says, and so must the
next one.

| | predictions | embeddings |
| --- | --- | --- |
{surfaces}

Four rules cover most rows.

- **Every call ends.** It returns the response, or raises an error of the package, once a timeout expires at the latest.
  `LMStudioTimeoutError` names the timeout that expired. [Timeouts](native-client.md#timeouts) explains them.
- **What arrived before the error is delivered.** A stream yields it, then raises. Only streams do: a whole response is
  returned whole or not at all.
- **The next call works** as soon as the fault is over. You never have to make a new client or a new adapter: a lost
  connection is opened again, and a model that was unloaded is loaded again.

- **A dead connection is noticed.** The timeouts of the tests are short. With the usual ones, `keepalive` notices after
  20 seconds that a connection is dead: the call raises `LMStudioConnectionLostError`, and no timeout expires.

The names below are those of the native client. LangChain's adapters raise a subclass that is also one of LangChain's
own errors, see [LangChain](reference/langchain.md).

`max_retries` is a setting of the adapters. It makes a call again if no server can be reached, or if the connection is
lost before your program has seen anything of the response; nothing else. A whole response is seen when it is there, a
stream as soon as it has begun. "Next call" is the call after that, with the same client or adapter, once the
fault is over. A dash means that the fault cannot happen there, or that nothing is repeated.
"""


def written(old: str) -> str:
    """Return the page, with the part of an older one that is written by hand."""
    written_by_hand = old[old.index(KEPT) :] if KEPT in old else KEPT
    sections = "\n".join("\n".join(_section(phase)) for phase in Phase)
    surfaces = "\n".join(_surfaces(family) for family in ("native", "LangChain", "LlamaIndex"))
    return f"{_HEAD.format(count=len(TABLE), surfaces=surfaces)}\n{sections}\n{written_by_hand}"


def _surfaces(family: str) -> str:
    kinds: tuple[Kind, ...] = ("chat", "embedding")
    cells = (
        ", ".join(f"`{surface.name}`" for surface in SURFACES if (surface.family, surface.kind) == (family, kind))
        for kind in kinds
    )
    return f"| {family} | {' | '.join(cells)} |"


def _section(phase: Phase) -> Iterator[str]:
    yield f"## {phase.value}\n"
    yield "| what happens | prediction | embedding | `max_retries` | next call |"
    yield "| --- | --- | --- | --- | --- |"
    for fault in TABLE:
        if fault.phase is phase:
            yield f"| {' | '.join(_cells(fault))} |"
    yield ""


def _cells(fault: Fault) -> tuple[str, ...]:
    outcomes = [
        "-" if outcome is None else _outcome(outcome) for outcome in (fault.outcome("chat"), fault.outcome("embedding"))
    ]
    if fault.between is not None and fault.chat is WORKS:
        outcomes, after = [_next(fault)] * 2, "works"
    else:
        after = _next(fault)
    return fault.name, *outcomes, _retries(fault), after


def _retries(fault: Fault) -> str:
    again = {
        surface.streams: fault.is_retried(surface, outcome)
        for surface in SURFACES
        if surface.has_retries and (outcome := fault.outcome(surface.kind)) is not None
    }
    return {(True, True): "tries again", (True, False): "tries again, unless it is a stream"}.get(
        (again[False], again.get(True, again[False])), "-"
    )


def _outcome(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"works, but {outcome.note}" if outcome.changed else "works"
    timeout = f" (`{outcome.timeout_name}`)" if outcome.timeout_name else ""
    note = f", {outcome.note}" if outcome.note else ""
    return f"`{outcome.error.__name__}`{timeout}{note}"


def _next(fault: Fault) -> str:
    if fault.permanent:
        return "fails in the same way"
    then = _outcome(fault.then)
    if fault.then.error is None and fault.then_on != "either connection":
        then += f", on {'the same' if fault.then_on == 'same connection' else 'a new'} connection"
    return then if fault.meanwhile is None else f"{_outcome(fault.meanwhile)} while it lasts, then {then}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
