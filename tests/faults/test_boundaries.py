"""A connection ends after any message of a server: the result is right or one error comes, and the next call works."""

import asyncio
from itertools import count
from typing import Any

import pytest
from websockets.frames import CloseCode

import lmstudio_integrations as lms
from tests.faults import actions
from tests.faults.cells import Cell, CellError, Servers, run_all
from tests.faults.faults import Phase
from tests.faults.model import WORKS, Row
from tests.faults.proxy import Action, Injection
from tests.faults.stage import Simulation
from tests.faults.surfaces import SURFACES, Surface, expected, joined

ENDS: dict[str, Action] = {
    "it is closed": actions.after(actions.finish),
    "it is reset": actions.after(actions.reset),
    "the WebSocket is closed with 1011": actions.after(actions.close(CloseCode.INTERNAL_ERROR)),
    "it is closed within the message": actions.cut(actions.finish),
    "it goes dead": actions.after(actions.go_dead),
}

MESSAGES = 15
"""How many messages of a server each call has at least: it loads the model."""

NOTICED = 60.0
"""Seconds after which a client knows that a connection has ended, or asks before it uses it."""


class Boundary(Cell):
    """A call during which the connection ends, and the next one."""

    def run(self) -> None:
        """Make the calls; the first one loads the model.

        Raises:
            CellError: If a result is wrong, or an error is none of a lost connection.
        """
        text = self._text("fault")
        with self.proxy, self.subject:
            parts: list[Any] = []
            error: Exception | None = None
            try:
                self.subject.call(text, {}, parts)
            except lms.LMStudioError as raised:
                error = raised
            self._check(error, parts, expected(self.surface.kind, text))
            self.heal()
            self.servers.stage.run(asyncio.sleep(NOTICED))
            self.call("next", WORKS)

    def _check(self, error: Exception | None, parts: list[Any], right: list[Any]) -> None:
        kind = self.surface.kind
        if error is None:
            if joined(kind, parts) != joined(kind, right):
                raise CellError(f"the call returned {parts}")
            return
        expired = isinstance(error, lms.LMStudioTimeoutError) and error.timeout_name == "connect_timeout"
        is_lost = expired or isinstance(error, lms.LMStudioConnectionLostError)
        if not (is_lost and isinstance(error, self.surface.error_base)):
            raise CellError(f"the call raised {error!r}")
        self._check_delivered("fault", parts, right)
        if self.retries and not parts:
            raise CellError(f"the call was not tried again after {error!r}")


def ending(servers: Servers, surface: Surface, end: Action, retries: int) -> list[str]:
    """Let the connection end after the first message, after the second one, and so on; return what is wrong."""
    found: list[str] = []
    for number in count():
        fault = Row("The connection ends.", Phase.FIRST, WORKS, inject=(Injection("message", end, skip=number),))
        if servers.main.loaded():
            servers.main.unload(str(surface))
        cell = Boundary(fault, surface, servers, retries)
        found += run_all(servers.stage, [(f"message {number + 1}, {retries} retries", cell, cell.run)])
        if not cell.proxy.happened.is_set():
            assert number > MESSAGES, f"the server sent {number} messages"
            return found
    raise AssertionError("a call has an end")


@pytest.mark.slow
@pytest.mark.sampled(10)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("surface", SURFACES, ids=str)
def test_a_connection_may_end_after_any_message(surface: Surface, end: str) -> None:
    with Simulation.begin() as stage, Servers.of(stage, Row("The connection ends.", Phase.FIRST, WORKS)) as servers:
        found = ending(servers, surface, ENDS[end], 0)
        if surface.has_retries:
            found += ending(servers, surface, ENDS[end], 1)
    assert not found, "\n".join(found)
