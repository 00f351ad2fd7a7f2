"""A model that has gone is loaded again by the next call, however it has gone and whichever call that is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.prediction_frames import joined
from tests.support.adapters import ADAPTERS, DECIDES, covering
from tests.support.virtual_time import in_virtual_time, serving

MODELS = (
    ModelEntry(key="chat", rules=(DECIDES, {"then": [{"text": "You said {last}"}]})),
    ModelEntry(key="other"),
    ModelEntry(key="vectors", kind="embedding", embedding_length=8),
)
TTL = 30.0

Call = Callable[[], Awaitable[Any]]


def do_nothing(word: str) -> str:
    """Return a word."""
    return word


NATIVE: dict[str, tuple[str, Callable[[Any], Awaitable[Any]]]] = {
    "slots": ("llm", lambda model: arun(model._model.slots())),  # as a reranker asks between two calls
    "respond": ("llm", lambda model: model.respond("Hi")),
    "respond_stream": ("llm", lambda model: joined(model.respond_stream("Hi"))),
    "complete": ("llm", lambda model: model.complete("Hi")),
    "act": ("llm", lambda model: model.act("Hi", [do_nothing])),
    "rerank": ("llm", lambda model: model.rerank("Hi", ["one", "two"])),
    "tokenize": ("llm", lambda model: model.tokenize("Hi")),
    "count_tokens": ("embedding", lambda model: model.count_tokens("Hi")),
    "embed": ("embedding", lambda model: model.embed("Hi")),
}


class Server:
    """An emulator that may be restarted, and what else makes its models go."""

    def __init__(self) -> None:
        self.address = ""
        self._port = 0
        self._emulators: list[Emulator] = []
        self._running = AsyncExitStack()

    async def start(self) -> None:
        emulator = Emulator(MODELS, port=self._port)
        self._emulators.append(emulator)
        self.address = await self._running.enter_async_context(serving(emulator))
        self._port = int(self.address.rpartition(":")[2])

    @property
    def loads(self) -> list[str]:
        return [load.key for emulator in self._emulators for load in emulator.loads if load.key != "other"]

    async def expire(self) -> None:
        """Let the time of the models expire."""
        await asyncio.sleep(TTL + 1)

    async def evict(self) -> None:
        """Load another model just in time."""
        async with lms.AsyncClient(self.address) as other:
            await other.llm.model("other")

    async def unload(self) -> None:
        """Unload them, as other programs do."""
        async with lms.AsyncClient(self.address) as other:
            for model in [*await other.llm.list_loaded(), *await other.embedding.list_loaded()]:
                await model.unload()

    async def restart(self) -> None:
        """Stop, and start again without models."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        await self._running.aclose()


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def calling(server: Server, name: str) -> AsyncIterator[Call]:
    """Yield a call on a handle or an adapter, which keeps the model that it has loaded."""
    if name in NATIVE:
        kind, make = NATIVE[name]
        async with lms.AsyncClient(server.address) as client:
            key = "vectors" if kind == "embedding" else "chat"
            yield partial(make, getattr(client, kind).lazy_model(key, ttl=TTL))
        return
    adapter = ADAPTERS[name]
    key = "vectors" if adapter.kind == "embedding" else "chat"
    model = adapter.make(model=key, host=server.address, ttl=TTL, load_policy="get_or_load")
    yield partial(adapter.acall, model, "Hi")
    await model.aclose()


@pytest.mark.filterwarnings("ignore::lmstudio_integrations.LMStudioEvictionWarning")
@pytest.mark.parametrize(
    ("name", "go"), covering([*NATIVE, *ADAPTERS], [Server.expire, Server.evict, Server.unload, Server.restart])
)
@in_virtual_time
async def test_a_model_that_has_gone_is_loaded_again(name: str, go: Callable[[Server], Awaitable[None]]) -> None:
    async with running() as server, calling(server, name) as call:
        for loads in (1, 2):
            await call()
            assert len(server.loads) == loads
            await go(server)
