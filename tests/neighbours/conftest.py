"""What the programs with other people's packages share: a closed network, the environment, servers.

Each file is a program with one package, in a process of its own. It begins with the row of the package on the page
`docs/guides/other-packages.md`:

    pytestmark = pytest.mark.neighbour(
        "ragas",
        group="evaluation",
        job="scores answers for faithfulness",
        settings="`context_length=8192` for contexts of more than 2,500 tokens",
        environment={"RAGAS_DO_NOT_TRACK": "true"},
        weekly=True,
    )

These are the name of the distribution, and of others that the program needs; its table on the page; what was run, as
the package's own README shows it; what a user has to set, and why; and variables, such as those that switch telemetry
off, which are set while the tests run. What is `weekly` is left out of `.ci/run`, for its time.

The packages are imported inside of the tests, when the environment is set.
"""

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest
from neighbour_servers import CHAT, EMBEDDING, REAL_CHAT, REAL_EMBEDDING, Collector, Received, Serve

from lmstudio_integrations.emulator import Emulator, ModelEntry

# A closed network ---------------------------------------------------------------------------------------------------

_outward: list[str] = []
"""The connections to other machines that were tried."""


def _is_this_machine(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return True
    try:
        return ip_address(str(name).split("%")[0]).is_loopback or str(name) in {"0.0.0.0", "::"}
    except ValueError:
        return False  # a name that is looked up


def _close_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket of this machine
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    else:
        return
    if not _is_this_machine(host):
        _outward.append(f"{event} {host}")
        raise ConnectionRefusedError(f"a program with another package must not leave this machine: {event} {host}")


sys.addaudithook(_close_network)


@pytest.fixture(autouse=True)
def outward() -> Iterator[list[str]]:
    """The connections to other machines that were tried; any that the test leaves here fails it."""
    yield _outward
    tried = sorted(set(_outward))
    _outward.clear()
    assert not tried, f"tried to leave this machine: {tried}"


# What is run --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user sets, by the row of the package. There is no key of any provider."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LM_API_TOKEN", "LMSTUDIO_API_TOKEN", "LMSTUDIO_HOST"):
        monkeypatch.delenv(name, raising=False)
    for mark in request.node.iter_markers("neighbour"):
        for name, value in mark.kwargs.get("environment", {}).items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers, each of which runs until the test ends."""
    with ExitStack() as servers:

        def start(*rules: Mapping[str, Any], models: Sequence[Any] = (), **fields: Any) -> Emulator:
            chat = ModelEntry.model_validate({"key": CHAT, "rules": rules, "context_length": 32768, **fields})
            embedding = ModelEntry(key=EMBEDDING, kind="embedding", embedding_length=256)
            server = servers.enter_context(Emulator([chat, embedding, *models]))
            monkeypatch.setenv("LMSTUDIO_HOST", server.address)
            return server

        yield start


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the bundled models, which run in llama.cpp; `LMSTUDIO_HOST` is set to it."""
    with Emulator([f"{key}={key}" for key in (REAL_CHAT, REAL_EMBEDDING)]) as server:
        monkeypatch.setenv("LMSTUDIO_HOST", server.address)
        yield server


@pytest.fixture
def tracing() -> tuple[Any, Any]:
    """A provider of OpenTelemetry's traces, and the exporter that keeps its spans."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An HTTP server that keeps what it receives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            collected.add(request)
            status, value = collected.answer(request)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the base class
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collected = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield collected
        server.shutdown()
        thread.join()
