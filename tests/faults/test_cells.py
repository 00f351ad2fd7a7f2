"""The matrix notices what differs from the table."""

import threading
from dataclasses import replace

import pytest

from lmstudio_integrations.emulator.testing.actions import duplicate, reset
from lmstudio_integrations.emulator.testing.faults import FAULTS, Phase, at
from lmstudio_integrations.emulator.testing.proxy import ProxyThread
from tests.faults import cells
from tests.faults.cells import Cell, Servers, run_all
from tests.faults.fault_table import TABLE
from tests.faults.model import LOST, WORKS, Row
from tests.faults.surfaces import CALL, SURFACES, Surface

RESPOND, STREAM = SURFACES[0], SURFACES[1]
RESET = Row("A reset.", Phase.MIDDLE, LOST, inject=at("middle packet", reset), then_on="new connection")


def test_every_fault_of_the_package_has_a_row() -> None:
    assert FAULTS.keys() <= {each.fault for each in TABLE}


def findings(proxies: ProxyThread, fault: Row, surface: Surface = RESPOND) -> str:
    with Servers.of(proxies, fault) as servers:
        cell = Cell(fault, surface, servers, 0)
        return "\n".join(run_all([(str(surface), cell, cell.run)]))


@pytest.mark.slow
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
def test_a_row_that_is_wrong_is_found(
    proxies: ProxyThread, fault: Row, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "MARGIN", 1.0)
    assert finding in findings(proxies, fault)


def test_a_row_that_is_right_is_not(proxies: ProxyThread) -> None:
    assert findings(proxies, RESET) == findings(proxies, RESET, STREAM) == ""


@pytest.mark.parametrize(
    "fault", [row for row in TABLE if row.tool_choice and row.call == CALL], ids=lambda row: row.name
)
def test_a_tool_call_that_does_not_come_is_found(proxies: ProxyThread, fault: Row) -> None:
    helpless = replace(RESPOND, way=lambda model, text, config=None, **_: RESPOND.way(model, text, config=config))
    assert "the fault call returned" in findings(proxies, fault, helpless)
    assert findings(proxies, fault) == ""


def test_a_raw_exception_is_found(proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(RESPOND, way=lambda _model, _text: iter([1 / 0]))
    assert "raw exception: ZeroDivisionError" in findings(proxies, RESET, broken)


@pytest.mark.slow
def test_a_call_that_hangs_is_found(proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MARGIN", 0.1)
    monkeypatch.setattr(cells, "LONG", 0.1)
    release = threading.Event()

    def hang() -> None:
        release.wait(600)

    with Servers.of(proxies, RESET) as servers:
        cell = Cell(RESET, RESPOND, servers, 0)
        assert run_all([("a cell", cell, hang)]) == ["a cell: hangs"]
    release.set()
