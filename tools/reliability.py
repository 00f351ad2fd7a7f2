"""Writes `docs/internals/reliability.md` from the fault table, if each row holds: `python -m tools.reliability`."""

import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

from tests.faults.fault_table import TABLE
from tests.faults.faults import Phase
from tests.faults.model import WORKS, Outcome, Row
from tests.faults.surfaces import SURFACES, Kind
from tests.faults.tool_call_table import TABLE as TOOL_CALLS
from tests.faults.tool_call_table import ToolFault
from tools import ROOT

KINDS: tuple[Kind, ...] = get_args(Kind)
PAGE = ROOT / "docs/internals/reliability.md"

KEPT = "## Under load\n"
"""The page is written by hand from this heading on."""

_HEAD = """\
# Failures and recovery

Servers restart, laptops sleep, proxies drop connections. This page lists {count} faults and the effect of each on a
call. It is generated from the fault table in `tests/faults/`, after a proxy has injected each fault into the calls
that respond, stream, act, embed and rerank, blocking and async, of the native client and of both frameworks, in virtual
time. A fifth of the rows also runs on sockets.

Four rules cover most rows.

- **No fault keeps a call from its end.** It returns the response or raises an error of this package, at the latest when
  a [timeout](../guides/timeouts.md) expires, which `LMStudioTimeoutError` names.
- **Streams deliver what arrived before the error.** A non-streaming call returns a complete response or none.
- **The next call works** as soon as the fault is over: it reconnects, and reloads a model that was unloaded.
- **Dead connections are detected** by `keepalive`, with the defaults after 20 seconds and before a timeout expires.

In the tables,

- *retried* means by [`max_retries`](../guides/timeouts.md#retries) of the adapters; a stream counts as received once it
  starts;
- *works* means on the same connection, *reconnects* on a new one, and the next call works where nothing is said of it;
- a kind of call is named where the faults do not happen to the others;
- the native client has `check_context=True`, as the adapters do, and rows with a second host run on
  [the adapters](../guides/several-hosts.md);
- errors have the native client's names. The LangChain adapters raise subclasses that are
  [LangChain errors](../reference/langchain.md#errors) as well.
"""


_TOOL_CALLS = """\
## Calls of tools of plugins

A tool has effects, so a call of one is never repeated: if its session ends while it may run,
`LMStudioToolConnectionLostError` names the tool. The next call opens a new session, with an
`LMStudioToolSessionWarning`: what the plugin remembered is gone.
"""

_NOUNS: dict[Kind, str] = dict(zip(KINDS, ("prediction", "embedding", "reranker"), strict=True))


def render_page(old: str) -> str:
    """Return the page; keep the handwritten part of the old one."""
    handwritten = old[old.index(KEPT) :] if KEPT in old else KEPT
    sections = "\n".join("\n".join(_section(phase)) for phase in Phase)
    tool_calls = "\n".join(_tool_calls())
    return f"{_HEAD.format(count=len(TABLE))}\n{sections}\n{tool_calls}\n{handwritten}"


def _section(phase: Phase) -> Iterator[str]:
    """Yield the table of a phase: faults that come to the same share a row."""
    yield f"## {phase.value}\n"
    yield "| faults | a call | next call |"
    yield "| --- | --- | --- |"
    rows: dict[tuple[str, str], list[str]] = {}
    for fault in TABLE:
        if fault.phase is phase:
            rows.setdefault(_effects(fault), []).append(fault.name)
    for (call, following), faults in rows.items():
        yield f"| {' '.join(faults)} | {call} | {'' if following == 'works' else f'{following} '}|"
    yield ""


def _tool_calls() -> Iterator[str]:
    yield _TOOL_CALLS
    yield "| when | faults | start or call | runs of the tool | next call |"
    yield "| --- | --- | --- | --- | --- |"
    rows: dict[tuple[str, ...], list[str]] = {}
    for fault in TOOL_CALLS:
        effects = fault.when.value, _tool_outcome(fault), str(fault.runs), _next_tool_call(fault)
        rows.setdefault(effects, []).append(fault.name)
    for (when, *then), faults in rows.items():
        yield f"| {when} | {' '.join(faults)} | {' | '.join(then)} |"
    yield ""


def _tool_outcome(fault: ToolFault) -> str:
    if fault.error is None:
        return "works"
    timeout = f" (`{fault.timeout}`)" if fault.timeout else ""
    return f"{'the next call: ' if fault.unnoticed else ''}`{fault.error.__name__}`{timeout}"


def _next_tool_call(fault: ToolFault) -> str:
    if fault.start is not None:
        return "works, if it starts then"
    return "works, in a new session" if fault.ends_session else "works"


def _effects(fault: Row) -> tuple[str, str]:
    """Return what a fault does to a call, with whether it is retried, and what it does to the next one."""
    happens = {surface.kind for surface in SURFACES if fault.happens_to(surface)}
    outcomes = {
        kind: _outcome(outcome) for kind in KINDS if kind in happens and (outcome := fault.outcome(kind)) is not None
    }
    if fault.between is not None and fault.chat is WORKS:
        return _next(fault), "works"
    if len(set(outcomes.values())) == 1 and len(outcomes) == len(KINDS):
        shown = outcomes[KINDS[0]]
    else:
        by_outcome: dict[str, list[str]] = {}
        for kind, text in outcomes.items():
            by_outcome.setdefault(text, []).append(_NOUNS[kind])
        shown = "; ".join(f"{' and '.join(nouns)}: {outcome}" for outcome, nouns in by_outcome.items())
    return shown + _retries(fault), _next(fault)


def _retries(fault: Row) -> str:
    again = {
        surface.streams: fault.is_retried(surface, outcome)
        for surface in SURFACES
        if surface.has_retries and (outcome := fault.outcome(surface.kind)) is not None
    }
    return {(True, True): "; retried", (True, False): "; retried, except streams"}.get(
        (again[False], again.get(True, again[False])), ""
    )


def _outcome(outcome: Outcome) -> str:
    if outcome.warning is not None:
        return f"works, with `{outcome.warning.__name__}`"
    if outcome.error is None:
        return f"works{', but' if outcome.changed else ','} {outcome.note}" if outcome.note else "works"
    timeout = f" (`{outcome.timeout_name}`)" if outcome.timeout_name else ""
    note = f", {outcome.note}" if outcome.note else ""
    return f"`{outcome.error.__name__}`{timeout}{note}"


def _next(fault: Row) -> str:
    if fault.permanent:
        return "same error"
    then = _outcome(fault.then)
    if fault.then.error is None and fault.then_on == "other host":
        then += " on the other host"
    elif then == "works" and fault.then_on == "new connection":
        then = "reconnects"
    return then if fault.meanwhile is None else f"{_outcome(fault.meanwhile)} while it lasts, then {then}"


if __name__ == "__main__":
    tests = [f"tests/faults/{name}.py" for name in ("test_faults", "test_tool_calls")]
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "not slow", *tests], check=True)
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
