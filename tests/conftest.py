"""Fixtures that all tests share, and what the normal run leaves out."""

import signal
from collections.abc import Iterator

import pytest

from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.gate import Gate
from tests.tqdm_bars import drawn

__all__ = ["drawn"]

collect_ignore_glob = ["conformance/*", "benchmarks/*"]
"""Both need software of others, or a quiet machine; they have commands of their own."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs like this, and the programs that the tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHAT_MODEL = "qwen2.5-7b-instruct"
EMBEDDING_MODEL = "text-embedding-nomic-embed-text-v1.5"


def scripted_models() -> list[ModelEntry]:
    """Return one model of each kind."""
    return [
        ModelEntry(key=CHAT_MODEL, vision=True),
        ModelEntry(key=EMBEDDING_MODEL, kind="embedding", embedding_length=768, max_context_length=2048),
    ]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server with one scripted model of each kind, none of them loaded."""
    with Emulator(scripted_models()) as server:
        yield server


@pytest.fixture
def gate() -> Gate:
    """What holds up a generation of a scripted model after its first words."""
    return Gate()


@pytest.fixture(autouse=True)
def _forget_servers() -> Iterator[None]:
    """Forget which models evicted each other on which server: the next server may have the port of an earlier one."""
    yield
    thread = IOThread._current
    if thread is not None:
        thread.shared.clear()
