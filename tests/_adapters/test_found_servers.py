"""Without a host, every adapter uses the server of this machine, whichever application has it, on any port."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE
from lmstudio_integrations.client.transport.connect import records
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.adapters import ADAPTERS, DECIDES, EMBEDDING_MODELS

MODELS = (
    ModelEntry(key="chatty", rules=(DECIDES,)),
    ModelEntry(key="vectors", kind="embedding", embedding_length=8),
)


@pytest.fixture
def _bionic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Bionic alone run on this machine."""
    monkeypatch.setattr(records, "home", lambda: tmp_path)
    for variable in (HOST_VARIABLE, SERVER_FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    record = tmp_path / "apps" / "bionic" / ".internal" / "http-server.json"
    record.parent.mkdir(parents=True)
    with Emulator(MODELS, catalog={"application": "bionic"}) as server:
        record.write_text(json.dumps({"port": server.port, "pid": os.getpid()}), encoding="utf-8")
        yield


@pytest.mark.usefixtures("_bionic")
@pytest.mark.parametrize("name", ADAPTERS)
def test_bionic_is_found_on_any_port(name: str) -> None:
    adapter = ADAPTERS[name]
    model = adapter.make(model="vectors" if name in EMBEDDING_MODELS else "chatty")
    assert adapter.call(model, "Hi")
    assert asyncio.run(adapter.acall(model, "Hi"))


@pytest.mark.usefixtures("_bionic")
def test_a_client_finds_bionic() -> None:
    with lms.Client() as client:
        assert client.llm.model("chatty").respond("Hi").content
