"""An emulator for the official SDK, and the check that neither side had to complain."""

import logging
from collections.abc import Iterator

import lmstudio as lms
import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry, Preset
from lmstudio_integrations.emulator.models.catalog import Catalog

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"

CHAT = ModelEntry(
    key="qwen2.5-7b-instruct",
    tokens_per_second=500,
    rules=(
        {"when": {"tools": ["add"], "role": "user"}, "then": [{"tool": "add", "arguments": {"a": 2, "b": 3}}]},
        {"when": {"role": "tool"}, "then": [{"text": "The result is {last}."}]},
        {"when": {"image": True}, "then": [{"text": "I see a picture."}]},
        {"when": {"last": "^Think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
        {"when": {"last": "^Fail"}, "then": [{"error": "It went wrong", "cause": "A rule says so"}]},
        {"when": {"last": "^Count"}, "then": [{"text": " ".join(map(str, range(1, 2001)))}]},
    ),
    vision=True,
    aliases=("qwen",),
)
BLIND = ModelEntry(key="blind-model", vision=False)
EMBEDDING = ModelEntry(
    key="text-embedding-nomic-embed-text-v1.5", kind="embedding", embedding_length=768, max_context_length=2048
)
OTHER = ModelEntry(key="not-yet-here", downloaded=False)


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a model of each kind, none loaded."""
    catalog = Catalog(
        models=(CHAT, BLIND, EMBEDDING, OTHER),
        presets=(
            Preset(identifier="brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 2}}),
        ),
    )
    with Emulator(catalog=catalog) as emulator:
        yield emulator


@pytest.fixture
def guarded_server() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator([CHAT], tokens=[TOKEN]) as emulator:
        yield emulator


@pytest.fixture
def client(server: Emulator) -> Iterator[lms.Client]:
    """The official client."""
    with lms.Client(server.address) as client:
        yield client


@pytest.fixture(autouse=True)
def _nobody_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which either side logged a warning, or received one."""
    caplog.set_level(logging.INFO)
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.get_records("teardown")]
    complaints = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert complaints == []
