"""Rows of the fault table: between a tool call that does not fit and its repair, which is a second request."""

from dataclasses import replace
from typing import Any

from lmstudio_integrations import errors
from tests.faults.actions import reset
from tests.faults.faults import FAULTS, Phase, at
from tests.faults.model import Outcome, Row
from tests.faults.surfaces import CALL, MISFIT, Surface

_OFFER: dict[str, Any] = {
    "steps": ({"text": "{last}"}, {"tool": MISFIT["name"], "arguments": MISFIT["arguments"]}),
    "tool_choice": "auto",
}

_KEPT = Outcome(
    note="with the call as the model made it, and logs a warning", logged="the request to mend a call failed"
)

_LOST = replace(_KEPT, handled=errors.LMStudioConnectionLostError)

_SILENT = replace(_KEPT, timeout_name="idle_timeout")

_MENDED = Outcome(note="with a mended call, and logs a warning", logged="mended 1 tool call")

_WHEN = {
    Phase.FIRST: "before a call is repaired",
    Phase.MIDDLE: "while a call is repaired",
}


def _makes_no_other_request(surface: Surface) -> bool:
    """Whether no other request follows in the same call, while the fault lasts."""
    return not surface.name.endswith("act")


def _row(fault: str, outcome: Outcome, *, times: float = 1, **members: Any) -> Row:
    """Return the row of a fault of the package's table that happens to the second request."""
    found = FAULTS[fault]
    inject = tuple(replace(each, skip=1, times=times) for each in found.injections)
    name = f"{found.summary.removesuffix('.')} {_WHEN[found.phase]}."
    call = CALL if outcome is _MENDED else MISFIT
    return Row(name, Phase.LAST, outcome, None, None, inject=inject, call=call, **_OFFER, **members)


def _connection(fault: str) -> Row:
    # The next round of `act` has opened a new connection before the next call.
    return _row(fault, _LOST, then_on="either connection")


ROWS = (
    Row("A tool call does not fit (`repair_tool_calls`).", Phase.LAST, _MENDED, None, None, **_OFFER),
    Row(
        "The connection is reset before the request to repair a call.",
        Phase.LAST,
        _LOST,
        None,
        None,
        inject=at("applyPromptTemplate request", reset),
        call=MISFIT,
        then_on="either connection",
        **_OFFER,
    ),
    _connection("connection-reset-before-response"),
    _connection("connection-closed-mid-response"),
    _row("host-freezes-mid-response", _SILENT, only=_makes_no_other_request, then_on="either connection"),
    _row("engine-stalls-mid-response", _SILENT),
    # Calls that are no streams load it again, and make three more attempts.
    _row("model-unloaded-mid-response", _KEPT, times=4, regenerated=True),
    # The first time, another form of the request is tried.
    _row("engine-fails-before-response", _MENDED),
    _row("engine-fails-mid-response", _KEPT, times=2),
    _row("no-json-mid-response", _KEPT),
)
