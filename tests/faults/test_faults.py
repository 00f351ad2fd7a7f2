"""Every fault of the table on half of the surfaces: what the call comes to, and what the next one does."""

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from random import Random
from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.proxy import ProxyThread
from tests.faults.cells import Cell, Servers, run_all
from tests.faults.fault_table import TABLE
from tests.faults.model import Row
from tests.faults.surfaces import SURFACES, Surface
from tests.support.certificates import LOCALHOST

INJECTED = [row.injected() for row in TABLE if row.fault and (row.steps or row.embedding_steps or row.load_steps)]
"""The faults of scripted models that the proxy can inject as well: they must come to the same."""


NATIVE = [surface for surface in SURFACES if surface.family == "native"]
"""What is enough for these, as nobody can tell who has made a fault."""


def drawn(fault: Row, callers: Sequence[Surface]) -> list[Surface]:
    """Return half of the surfaces of each family and kind that a fault happens to, always the same ones."""
    groups = defaultdict(list)
    for surface in callers:
        if fault.happens_to(surface):
            groups[surface.family, surface.kind].append(surface)
    draw = Random(fault.name)
    return [surface for group in groups.values() for surface in draw.sample(group, (len(group) + 1) // 2)]


@pytest.mark.sampled(10)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "callers"),
    [
        *(pytest.param(row, SURFACES, id=f"{row.phase.name}: {row.name}") for row in TABLE),
        *(pytest.param(row, NATIVE, id=f"{row.phase.name}: {row.name} (injected)") for row in INJECTED),
    ],
)
def test_the_surfaces_match_the_table(
    fault: Row,
    callers: Sequence[Surface],
    proxies: ProxyThread,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST) if fault.trusted else os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    surfaces = drawn(fault, callers)
    warned = fault.chat.warning
    recorder = pytest.warns(warned) if warned else nullcontext(list[Any]())
    with Servers.of(proxies, fault) as servers, recorder as given:
        # Without a pause in any adapter, `max_retries` has changed nothing.
        cells = [Cell(fault, surface, servers, 0 if fault.may_be_retried(surface) else 1) for surface in surfaces]
        found = run_all([(str(cell.surface), cell, cell.run) for cell in cells])
        found += [f"{cell.surface}: it tried again" for cell in cells if cell.pauses and not fault.regenerated]
        # What a model is scripted to do, it does in every attempt.
        again = [
            Cell(fault, surface, servers, 1)
            for surface in surfaces
            if surface.has_retries and fault.is_retried(surface, fault.outcome(surface.kind)) and not fault.steps
        ]
        if again:
            found += run_all([(f"{cell.surface} with a retry", cell, cell.run_with_retry) for cell in again])
    assert not found, "\n".join(found)
    assert len(given) == (len(surfaces) if warned else 0)
    if fault.chat.logged:
        logged = [record.getMessage().partition(": ") for record in caplog.records]
        assert sorted(model for model, _, _ in logged) == sorted(repr(str(surface)) for surface in surfaces)
        assert all(message.startswith(fault.chat.logged) for _, _, message in logged)
