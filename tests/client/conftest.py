"""Fixtures of the client's tests: a scripted server, and a client.

The client is async: the sync one is written from it, and `tests/client/api` makes every call on both. Modules whose
callers wait, are called back or read files import `make_client` of `both.py`, which is each client in turn.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.support.endless import ENDLESS
from tests.support.strict.fixture import strict, strict_findings

__all__ = ["strict", "strict_findings"]

MODELS: list[dict[str, Any]] = [
    {
        "key": "chatty",
        "kind": "llm",
        "engine": "scripted",
        "context_length": 4096,
        "rules": [
            {"when": {"last": "^count"}, "then": [{"text": " ".join(str(n) for n in range(200))}]},
            {"when": {"last": "^for ever"}, "then": ENDLESS},
            {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
            {"when": {"last": "^weather"}, "then": [{"tool": "weather", "arguments": {"city": "Oslo"}}]},
            {"when": {"last": "^break"}, "then": [{"text": "so far "}, {"error": "the engine gave up"}]},
            {"when": {"last": "^refuse"}, "then": [{"error": "no", "code": "generic.presetNotFound"}]},
            {"when": {"last": "^drop"}, "then": [{"text": "going "}, {"fault": "drop"}]},
            {"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},
        ],
    },
    {"key": "other", "kind": "llm", "engine": "scripted"},
    {"key": "vectors", "kind": "embedding", "engine": "scripted", "embedding_length": 16},
]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A scripted server for this test alone."""
    with Emulator(MODELS) as running:
        yield running


@pytest.fixture
def make_client() -> Callable[..., Any]:
    """A factory of clients; its arguments are the client's."""
    return lms.AsyncClient


@pytest.fixture
async def client(make_client: Callable[..., Any], server: Emulator) -> Any:
    """A client of the server."""
    async with make_client(server.address) as made:
        yield made


@pytest.fixture
async def model(client: Any) -> Any:
    """The language model of the server."""
    return await client.llm.model("chatty")
