"""Pauses before a retry after a failed connection take no time: tests record them instead."""

from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import Operation


def replace_pauses(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], Any]) -> None:
    """Call a function in place of each pause before a retry, in the thread or task that would wait.

    The pauses before a reload, which are part of an operation, remain.
    """
    wait = ClientContext.pause

    def pause(_context: object, seconds: float) -> Flow[None]:
        yield from ()
        record(seconds)

    monkeypatch.setattr(ClientContext, "pause", pause)
    monkeypatch.setattr(Operation, "pause", lambda operation, seconds: wait(operation.context, seconds))
