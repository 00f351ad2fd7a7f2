"""Every fault of the table on all surfaces in virtual time, sync and async, and a fifth of them on sockets."""

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from random import Random
from typing import Any

import pytest

from tests.faults.cells import Cell, Servers, run_all
from tests.faults.fault_table import TABLE
from tests.faults.model import Row
from tests.faults.stage import Simulation, Stage, Threads
from tests.faults.surfaces import SURFACES, Surface
from tests.support.certificates import LOCALHOST

SIMULATED = [row for row in TABLE if row.stop is None]
"""All but races of threads."""

REAL = [row for row in TABLE if not row.waits]
"""Those in which no timeout is to expire: a busy machine cannot tell it from a late one."""

FIFTH = Random(0).sample(REAL, len(TABLE) // 5)


def only_threads_show(fault: Row) -> bool:
    """Whether it is a race of threads, or has the TLS of the system's sockets."""
    return fault.stop is not None or fault.tls or fault.scheme == "wss"


def drawn(fault: Row) -> list[Surface]:
    """Return half of the surfaces of each family and kind that a fault happens to, always the same ones."""
    groups = defaultdict(list)
    for surface in SURFACES:
        if fault.happens_to(surface):
            groups[surface.family, surface.kind].append(surface)
    draw = Random(fault.name)
    return [surface for group in groups.values() for surface in draw.sample(group, (len(group) + 1) // 2)]


def named(rows: Sequence[Row]) -> list[Any]:
    return [pytest.param(row, id=f"{row.phase.name}: {row.name}") for row in rows]


@pytest.mark.sampled(25)
@pytest.mark.parametrize("fault", named(SIMULATED))
def test_the_surfaces_match_the_table_in_virtual_time(
    fault: Row, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Simulation.begin() as stage:
        check(stage, fault, [surface for surface in SURFACES if fault.happens_to(surface)], monkeypatch, caplog)


@pytest.mark.slow
@pytest.mark.sampled(10)
@pytest.mark.parametrize("fault", named([row for row in REAL if only_threads_show(row) or row in FIFTH]))
def test_the_surfaces_match_the_table_on_sockets(
    fault: Row, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, proxies: Threads
) -> None:
    check(proxies, fault, drawn(fault), monkeypatch, caplog)


def check(
    stage: Stage,
    fault: Row,
    surfaces: list[Surface],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Compare what calls come to with the table."""
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST) if fault.trusted else os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    warned = fault.chat.warning
    recorder = pytest.warns(warned) if warned else nullcontext(list[Any]())
    with Servers.of(stage, fault) as servers, recorder as given:
        # Without a pause in any adapter, `max_retries` has changed nothing.
        cells = [Cell(fault, surface, servers, 0 if fault.may_be_retried(surface) else 1) for surface in surfaces]
        found = run_all(stage, [(str(cell.surface), cell, cell.run) for cell in cells])
        found += [f"{cell.surface}: it tried again" for cell in cells if cell.pauses and not fault.regenerated]
        # What a model is scripted to do, it does in every attempt.
        again = [
            Cell(fault, surface, servers, 1)
            for surface in surfaces
            if surface.has_retries and fault.is_retried(surface, fault.outcome(surface.kind)) and not fault.steps
        ]
        if again:
            found += run_all(stage, [(f"{cell.surface} with a retry", cell, cell.run_with_retry) for cell in again])
    assert not found, "\n".join(found)
    assert len(given) == (len(surfaces) if warned else 0)
    if fault.chat.logged:
        logged = [record.getMessage().partition(": ") for record in caplog.records]
        assert sorted(model for model, _, _ in logged) == sorted(repr(str(surface)) for surface in surfaces)
        assert all(message.startswith(fault.chat.logged) for _, _, message in logged)
