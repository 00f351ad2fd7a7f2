"""Pauses before a retry after a failed connection take no time: tests record them instead."""

from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.client.transport.caller import Caller
from lmstudio_integrations.client.transport.flows import Flow


def replace_pauses(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], Any]) -> None:
    """Call a function in place of each pause before a retry, in the thread or task that would wait."""

    def pause(_caller: object, seconds: float) -> Flow[None]:
        yield from ()
        record(seconds)

    monkeypatch.setattr(Caller, "pause", pause)
