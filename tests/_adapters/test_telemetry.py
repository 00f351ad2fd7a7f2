"""OpenTelemetry in programs: with the adapters of both frameworks, and without OpenTelemetry."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.client.transport.listener import NOBODY, default_listener
from lmstudio_integrations.emulator import Emulator
from tests.support.adapters import ADAPTERS, Adapter
from tests.support.leaks import TOKEN
from tests.support.served import served
from tests.support.telemetry import Telemetry, is_child, telemetry

pytestmark = pytest.mark.leaf

__all__ = ["telemetry"]

MODELS: list[dict[str, Any]] = [
    {"key": "chat", "engine": "scripted"},
    {"key": "vectors", "kind": "embedding", "engine": "scripted"},
]
SPAN_NAMES = {"chat": "chat chat", "text": "text_completion chat", "embedding": "embeddings vectors"}
SPAN_NAMES["reranker"] = SPAN_NAMES["classifier"] = SPAN_NAMES["text"]  # one for each text or question

server = served(MODELS, scope="function", tokens=[TOKEN])


def made(adapter: Adapter, server: Emulator, **settings: Any) -> Any:
    model = "vectors" if adapter.kind == "embedding" else "chat"
    return adapter.make(**{"model": model, "host": server.address, "api_token": TOKEN, **settings})


def span_name(adapter: Adapter) -> str:
    """Return the name of the span; LlamaIndex completes with a chat model by a chat."""
    return SPAN_NAMES[adapter.kind]


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_of_an_adapter_is_a_span_under_that_of_the_program(
    name: str, server: Emulator, telemetry: Telemetry, is_async: bool
) -> None:
    adapter = ADAPTERS[name]
    model = made(adapter, server)
    with telemetry.start_span("framework") as framework:
        asyncio.run(adapter.acall(model, "hi")) if is_async else adapter.call(model, "hi")
    span = telemetry.span(span_name(adapter))
    assert is_child(span, framework)
    loaded_by = framework if adapter.kind in {"reranker", "classifier"} else span
    assert all(is_child(each, loaded_by) for each in telemetry.spans if each.name.startswith(("connect", "load")))


@pytest.mark.parametrize(("name", "method"), [("ChatLMStudio", "stream"), ("LMStudio", "stream_complete")])
def test_a_stream_of_an_adapter_that_is_closed_early_is_one_span(
    name: str, method: str, server: Emulator, telemetry: Telemetry
) -> None:
    chunks = getattr(made(ADAPTERS[name], server), method)("hi")
    next(chunks)
    chunks.close()
    assert telemetry.names.count("chat chat") == 1


# Without OpenTelemetry

WITHOUT = """
import sys
import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
with Emulator([{"key": "chat", "engine": "scripted"}]) as server, lms.Client(server.address) as client:
    model = client.llm.model("chat")
    assert model.respond("hi").content
    assert "".join(fragment.content for fragment in model.respond_stream("hi"))
print(sorted(name for name, module in sys.modules.items() if name.startswith("opentelemetry") and module))
"""


@pytest.mark.slow
def test_opentelemetry_is_neither_needed_nor_imported(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(WITHOUT, encoding="utf-8")
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=600, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


# Other versions of OpenTelemetry


class _Module:
    """The API without the attributes that this version has."""


def test_a_version_that_hides_its_provider_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_listener() is NOBODY
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", _Module)
    assert default_listener() is not NOBODY
