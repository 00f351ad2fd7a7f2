"""The matrix notices what differs from the table."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.proxy.actions import duplicate, lose, reset
from lmstudio_integrations.emulator.testing.proxy.fault import Phase, at
from lmstudio_integrations.emulator.testing.proxy.fault_table import FAULTS
from lmstudio_integrations.emulator.testing.proxy.proxy import ProxyThread
from tests.faults import calling, cells, mending
from tests.faults.cells import Cell, Servers, run_all
from tests.faults.fault_table import TABLE
from tests.faults.model import LOST, UNREACHABLE, WORKS, Row, expires
from tests.faults.responding import ROWS
from tests.faults.surfaces import CALL, SURFACES, Subject, Surface

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
        (replace(RESET, chat=UNREACHABLE), "instead of LMStudioUnreachableError"),
        (replace(RESET, then_on="same connection"), "the next call used the new connection"),
        (replace(RESET, then=LOST), "the next call did not raise LMStudioConnectionLostError"),
        (
            replace(RESET, inject=at("last packet", lose), chat=expires("idle_timeout")),
            "instead of LMStudioTimeoutError",
        ),
        (replace(RESET, inject=at("middle packet", duplicate), chat=WORKS), "the fault call returned"),
        (replace(RESET, chat=WORKS, inject=at("no such point", reset)), "the fault never happened"),
    ],
)
def test_a_row_that_is_wrong_is_found(
    proxies: ProxyThread, fault: Row, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "MARGIN", 1.0)
    assert finding in findings(proxies, fault)


def test_a_call_that_never_tries_the_first_host_is_found(proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = next(row for row in calling.ROWS if row.has_other_host)
    invoke = next(surface for surface in SURFACES if surface.has_hosts)
    monkeypatch.setattr(cells, "Subject", lambda surface, hosts, *rest: Subject(surface, hosts[::-1], *rest))
    assert "the first host got no call" in findings(proxies, moves, invoke)


def test_a_row_that_is_right_is_not(proxies: ProxyThread) -> None:
    assert findings(proxies, RESET) == findings(proxies, RESET, STREAM) == ""


@pytest.mark.slow
def test_a_timeout_under_another_name_is_found(proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "LONG", 0.5)
    stalls = next(row for row in ROWS if row.name == "The engine stalls.")
    wrong = replace(stalls, chat=expires("idle_timeout"), steps=({"fault": "stall"},))
    assert "first_token_timeout expired, not idle_timeout" in findings(proxies, wrong)


@pytest.mark.parametrize(
    "fault", [row for row in TABLE if row.tool_choice and row.call == CALL], ids=lambda row: row.name
)
def test_a_tool_call_that_does_not_come_is_found(proxies: ProxyThread, fault: Row) -> None:
    helpless = replace(RESPOND, way=lambda model, text, config=None, **_: RESPOND.way(model, text, config=config))
    assert "the fault call returned" in findings(proxies, fault, helpless)
    assert findings(proxies, fault) == ""


@pytest.mark.parametrize("fault", [row for row in TABLE if row.is_about_thoughts], ids=lambda row: row.name)
def test_a_thought_that_is_sent_or_lost_is_found(proxies: ProxyThread, fault: Row) -> None:
    harmless = replace(fault, inject=(), max_tokens=fault.max_tokens and 50)
    finding = (
        "the fault call returned the thought" if fault.max_tokens else "the last call sent '<think>Where do ferries"
    )
    assert finding in findings(proxies, harmless)
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
        release.wait(5)

    with Servers.of(proxies, RESET) as servers:
        cell = Cell(RESET, RESPOND, servers, 0)
        assert run_all([("a cell", cell, hang)]) == ["a cell: hangs"]
    release.set()


@pytest.mark.slow
def test_a_timeout_that_expires_before_the_fault_shows_nothing(
    proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "SHORT", 0.1)
    slow = replace(
        next(row for row in ROWS if row.name == "A frame announces more bytes than arrive."),
        embedding_steps=({"wait": 0.5},),
    )
    embed = next(surface for surface in SURFACES if surface.kind == "embedding")
    with Servers.of(proxies, slow) as servers:
        cell = Cell(slow, embed, servers, 0)
        assert not run_all([("a cell", cell, cell.run)])
        assert cell.timeout > 1


@pytest.mark.slow
def test_nor_does_one_that_the_call_handles(proxies: ProxyThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SHORT", 0.1)
    entry = cells._entry
    late = {"when": {"structured": True}, "then": [{"text": "Hm. "}, {"wait": 0.5}]}

    def with_late(fault: Row, surface: Surface) -> dict[str, Any]:
        made = entry(fault, surface)
        return {**made, "rules": [late, *made["rules"]]} if surface is RESPOND else made

    monkeypatch.setattr(cells, "_entry", with_late)
    stalls = next(row for row in mending.ROWS if row.name.startswith("The engine stalls"))
    stalls = replace(stalls, inject=tuple(replace(each, point="last packet") for each in stalls.inject))
    with Servers.of(proxies, stalls) as servers:
        cell = Cell(stalls, RESPOND, servers, 0)
        assert not run_all([("a cell", cell, cell.run)])
        assert cell.timeout > 1
