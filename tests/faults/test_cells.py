"""The matrix notices what differs from the table."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import stage
from tests.faults.actions import duplicate, reset
from tests.faults.cells import Cell, Servers, run_all
from tests.faults.fault_table import TABLE
from tests.faults.faults import FAULTS, Phase, at
from tests.faults.model import LOST, WORKS, Row
from tests.faults.stage import Simulation, Threads
from tests.faults.surfaces import CALL, SURFACES, Surface

RESPOND, STREAM = [each for each in SURFACES if each.is_async][:2]
RESET = Row("A reset.", Phase.MIDDLE, LOST, inject=at("middle packet", reset), then_on="new connection")


def test_every_fault_of_the_package_has_a_row() -> None:
    assert FAULTS.keys() <= {each.fault for each in TABLE}


def findings(fault: Row, surface: Surface = RESPOND) -> str:
    with Simulation.begin() as stage, Servers.of(stage, fault) as servers:
        cell = Cell(fault, surface, servers, 0)
        return "\n".join(run_all(stage, [(str(surface), cell, cell.run)]))


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        (replace(RESET, chat=WORKS), "the fault call failed: LMStudioConnectionLostError"),
        (replace(RESET, then_on="same connection"), "the next call used the new connection"),
        (replace(RESET, then=LOST), "the next call did not raise LMStudioConnectionLostError"),
        (replace(RESET, inject=at("middle packet", duplicate), chat=WORKS), "the fault call returned"),
        (replace(RESET, chat=WORKS, inject=at("no such point", reset)), "the fault never happened"),
    ],
)
def test_a_row_that_is_wrong_is_found(fault: Row, finding: str) -> None:
    assert finding in findings(fault)


def test_a_row_that_is_right_is_not() -> None:
    assert findings(RESET) == findings(RESET, STREAM) == ""


@pytest.mark.leaf("calls_in_text", "required_tool_fallback")
@pytest.mark.parametrize(
    "fault", [row for row in TABLE if row.tool_choice and row.call == CALL], ids=lambda row: row.name
)
def test_a_tool_call_that_does_not_come_is_found(fault: Row) -> None:
    async def call(model: Any, text: str, config: Any = None, **_: Any) -> AsyncIterator[Any]:
        parts: Any = RESPOND.way(model, text, config=config)
        async for part in parts:
            yield part

    assert "the fault call returned" in findings(fault, replace(RESPOND, way=call))
    assert findings(fault) == ""


def test_a_raw_exception_is_found() -> None:
    assert "raw exception: ZeroDivisionError" in findings(RESET, replace(RESPOND, way=lambda *_: iter([1 / 0])))


def test_a_call_that_hangs_is_found() -> None:
    async def hang(*_: Any) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    assert "DeadlockError" in findings(RESET, replace(RESPOND, way=hang))


def test_a_thread_that_hangs_is_found(proxies: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LIMIT", 0.1)
    release = threading.Event()

    def hang() -> None:
        release.wait()

    assert proxies.run_all([("a cell", hang)]) == ["a cell"]
    release.set()
