"""Several scripted servers with the same model, and the calls that each adapter makes on them."""

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter
from tests.support.gate import AT_THE_GATE, Gate

CHAT, EMBEDDING = "chat", "vectors"

SECONDS = 600.0

RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^hold"}, "then": [AT_THE_GATE, {"text": "Done."}]},
    {"when": {"last": "^stall"}, "then": [{"text": "so far"}, AT_THE_GATE, {"text": "Done."}]},
)

every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
both_paths = pytest.mark.parametrize("path", ["sync", "async"])
# What is done with hosts is the same for all adapters, and on both paths.
every_adapter_on_a_path = pytest.mark.parametrize(
    ("adapter", "path"), [*zip(ADAPTERS.values(), cycle(["sync", "async"]), strict=False)]
)
some_adapters_on_a_path = pytest.mark.parametrize(
    ("adapter", "path"), [(ADAPTERS["ChatLMStudio"], "async"), (ADAPTERS["LMStudioEmbedding"], "sync")]
)
every_language_model_on_a_path = pytest.mark.parametrize(
    ("adapter", "path"), [*zip(LANGUAGE_MODELS.values(), cycle(["async", "sync"]), strict=False)]
)


def chat_model(**fields: Any) -> ModelEntry:
    """Return a language model that runs two predictions at once."""
    return ModelEntry(**{"key": CHAT, "slots": 2, "rules": RULES, "vision": True, **fields})


def embedding_model(**fields: Any) -> ModelEntry:
    """Return an embedding model."""
    return ModelEntry(**{"key": EMBEDDING, "kind": "embedding", "embedding_length": 8, **fields})


@contextlib.contextmanager
def servers(*models: tuple[ModelEntry, ...], gate: Gate | None = None, **settings: Any) -> Iterator[list[Emulator]]:
    """Run a server for each tuple of models."""
    with contextlib.ExitStack() as stack:
        engines = None if gate is None else gate.engines()
        yield [stack.enter_context(Emulator(each, engines=engines, **settings)) for each in models]


@contextlib.contextmanager
def two_servers(gate: Gate | None = None) -> Iterator[list[Emulator]]:
    """Run two servers with both models loaded."""
    models = (chat_model(preload=True), embedding_model(preload=True))
    with servers(models, models, gate=gate) as pair:
        yield pair


def addresses(emulators: list[Emulator]) -> list[str]:
    """Return the addresses of servers."""
    return [each.address for each in emulators]


def key_of(adapter: Adapter) -> str:
    """Return the model for an adapter."""
    return EMBEDDING if adapter.kind == "embedding" else CHAT


def call(adapter: Adapter, path: str, model: Any, text: str, **given: Any) -> Any:
    """Make a call, blocking or not."""
    if path == "sync":
        return adapter.call(model, text, **given)
    return asyncio.run(adapter.acall(model, text, **given))


def known(model: Any) -> "list[lms.HostStatus]":
    """Return what the hosts of an object are known to do, without asking them."""
    statuses: list[lms.HostStatus] = native_model_of(model).hosts.statuses()
    return statuses


def native_model_of(model: Any) -> Any:
    """Return the native model that an object uses."""
    used, calling = model._resolve_model(vars(model))
    return used.model(calling, ThreadMailbox)


def requests(server: Emulator) -> int:
    """Return how many predictions and embeddings a server got."""
    return len(server.predictions) + len(server.embedded_texts)


def running(server: Emulator) -> int:
    """Return how many predictions of a server run."""
    return sum(each.state == "running" for each in server.predictions)
