"""What the programs with other people's packages are run on: servers, and a collector of HTTP requests."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmstudio_integrations.emulator import Emulator

CHAT = "qwen2.5-7b-instruct"
"""The scripted chat model of each server."""

EMBEDDING = "text-embedding-nomic-embed-text-v1.5"
"""The scripted embedding model of each server. Texts with like words have like vectors."""

REAL_CHAT, REAL_EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
"""The bundled models, which are real, and small."""


class Serve(Protocol):
    """Starts a server."""

    def __call__(self, *rules: Mapping[str, Any], models: Sequence[Any] = (), **fields: Any) -> Emulator:
        """Start a server with the two scripted models, and set `LMSTUDIO_HOST` to it.

        Args:
            rules: The rules of the chat model.
            models: More models.
            fields: More fields of the chat model, such as `context_length`.
        """
        ...


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn on this event loop; the address is that of its server."""
    import uvicorn

    started = asyncio.Event()

    class Web(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    web = Web(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(web.serve())
    async with asyncio.timeout(60):
        await started.wait()
        yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
        web.should_exit = True
        await serving


@dataclass(frozen=True, slots=True)
class Received:
    """A request that the collector got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Collector:
    """An HTTP server that keeps what it receives, and stands in for the service that a package reports to.

    Attributes:
        requests: What it received.
        answer: Returns the status and the JSON of the answer to a request; by default 200 and an empty object.
    """

    address: str
    requests: list[Received] = field(default_factory=list[Received])
    answer: Callable[[Received], tuple[int, Any]] = lambda _: (200, {})
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, request: Received) -> None:
        """Keep a request."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for(self, path: str, count: int = 1, timeout: float = 60.0) -> list[Received]:
        """Return the requests whose path contains this, once there are so many."""

        def found() -> list[Received]:
            return [request for request in self.requests if path in request.path]

        with self._changed:
            there = self._changed.wait_for(lambda: len(found()) >= count, timeout)
            assert there, f"no {path} among {[request.path for request in self.requests]}"
            return found()
