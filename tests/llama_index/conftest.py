"""A server for each test, and a process that has learnt nothing of windows."""

from collections.abc import Iterator

import pytest

from lmstudio_integrations.llama_index import _windows
from lmstudio_integrations.llama_index.llms import LMStudio
from tests.llama_index.server import Server
from tests.strict.fixture import overhearing, strict

__all__ = ["overhearing", "strict"]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def llm(server: Server) -> Iterator[LMStudio]:
    with server.llm() as model:
        yield model


@pytest.fixture(autouse=True)
def _nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_windows, "_windows", {})
