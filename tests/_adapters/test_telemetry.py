"""OpenTelemetry in programs: with the adapters of both frameworks, and without OpenTelemetry."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.transport.listener import has_provider
from lmstudio_integrations.emulator import Emulator
from tests.docs.snippets import blocks
from tests.support.adapters import ADAPTERS, Adapter
from tests.support.leaks import TOKEN
from tests.support.telemetry import Telemetry, is_child, telemetry

__all__ = ["telemetry"]

MODELS: list[dict[str, Any]] = [
    {"key": "chat", "engine": "scripted"},
    {"key": "vectors", "kind": "embedding", "engine": "scripted"},
]
SPAN_NAMES = {"chat": "chat chat", "text": "text_completion chat", "embedding": "embeddings vectors"}
SPAN_NAMES["reranker"] = SPAN_NAMES["text"]  # one for each text


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator(MODELS, tokens=[TOKEN]) as running:
        yield running


def made(adapter: Adapter, server: Emulator, **settings: Any) -> Any:
    model = "vectors" if adapter.kind == "embedding" else "chat"
    return adapter.make(**{"model": model, "host": server.address, "api_token": TOKEN, **settings})


def span_name(adapter: Adapter) -> str:
    """Return the name of the span; LlamaIndex completes with a chat model by a chat."""
    return SPAN_NAMES[adapter.kind]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_call_of_an_adapter_is_a_span_under_that_of_the_program(
    name: str, server: Emulator, telemetry: Telemetry
) -> None:
    adapter = ADAPTERS[name]
    model = made(adapter, server)
    with telemetry.start_span("framework") as framework:
        adapter.call(model, "hi")
    span = telemetry.span(span_name(adapter))
    assert is_child(span, framework)
    loaded_by = framework if adapter.kind == "reranker" else span
    assert all(is_child(each, loaded_by) for each in telemetry.spans if each.name.startswith(("connect", "load")))


@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_async_call_of_an_adapter_is_a_span_too(name: str, server: Emulator, telemetry: Telemetry) -> None:
    adapter = ADAPTERS[name]
    with telemetry.start_span("framework") as framework:
        await adapter.acall(made(adapter, server), "hi")
    assert is_child(telemetry.span(span_name(adapter)), framework)


def langchain_stream(model: Any) -> Iterator[Any]:
    return iter(model.stream("hi"))


def llama_index_stream(model: Any) -> Iterator[Any]:
    return iter(model.stream_complete("hi"))


@pytest.mark.parametrize(
    ("name", "stream"), [("ChatLMStudio", langchain_stream), ("LMStudio", llama_index_stream)], ids=["LC", "LI"]
)
def test_a_stream_of_an_adapter_that_is_closed_early_is_one_span(
    name: str, stream: Callable[[Any], Iterator[Any]], server: Emulator, telemetry: Telemetry
) -> None:
    chunks = stream(made(ADAPTERS[name], server))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]  # both are generators
    assert telemetry.names.count("chat chat") == 1


# The page


@pytest.mark.exhaustive
def test_the_program_on_the_page_exports_its_spans_and_metrics(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("\n".join(blocks("docs/guides/logs-and-traces.md")), encoding="utf-8")
    with Emulator(["m"], load=["m"]) as running:
        environment = {**os.environ, HOST_VARIABLE: running.address}
        run = subprocess.run(
            [sys.executable, program], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    assert not run.returncode, run.stderr
    for name in ("answer a question", "chat", "connect", "gen_ai.client.token.usage"):
        assert f'"name": "{name}"' in run.stdout


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
    assert not has_provider()
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", _Module)
    assert has_provider()


def test_a_version_without_bucket_boundaries_has_the_histograms(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = telemetry.metrics.get_meter("other")
    create = meter.create_histogram
    monkeypatch.setattr(telemetry.metrics, "get_meter", lambda _: meter)
    monkeypatch.setattr(meter, "create_histogram", lambda name, *, unit: create(name, unit))
    with Emulator(["m"], load=["m"]) as server, lms.Client(server.address) as client:
        client.llm.model("m").respond("hi")
    assert [point.count for point in telemetry.points("gen_ai.client.operation.duration")] == [1]
