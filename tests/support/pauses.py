"""Pauses before a retry after a failed connection take no time: tests record them instead."""

from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.client.models import retries
from lmstudio_integrations.client.predictions import run
from lmstudio_integrations.client.transport.flows import Flow


def replace_pauses(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], Any]) -> None:
    """Call a function in place of each pause before a retry, in the thread or task that would wait."""

    def pause(_dispatcher: object, seconds: float) -> Flow[None]:
        yield from ()
        record(seconds)

    for module in (run, retries):
        monkeypatch.setattr(module, "pause", pause)
