"""The models of the emulators that the official SDKs use, and the check that nobody had to complain."""

import logging
from collections.abc import Iterator

import pytest

from lmstudio_integrations.cli._serve import build_catalog
from lmstudio_integrations.emulator import Emulator, ModelEntry

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
RULES = (
    {"when": {"tools": ["add"], "role": "user"}, "then": [{"tool": "add", "arguments": {"a": 2, "b": 3}}]},
    {"when": {"role": "tool"}, "then": [{"text": "The result is {last}."}]},
    {"when": {"image": True}, "then": [{"text": "I see a picture."}]},
    {"when": {"last": "^Think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
    {"when": {"last": "^Fail"}, "then": [{"error": "It went wrong", "cause": "A rule says so"}]},
    {"when": {"last": "^Count"}, "then": [{"text": " ".join(map(str, range(1, 2001)))}]},
    {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]},
)
CHAT = ModelEntry(key="qwen2.5-7b-instruct", tokens_per_second=500, rules=RULES, vision=True, aliases=("qwen",))
BLIND = ModelEntry(key="blind-model", vision=False)
EMBEDDING = ModelEntry(key="text-embedding-nomic-embed-text-v1.5", kind="embedding", max_context_length=2048)
ABSENT = ModelEntry(key="not-yet-here", downloaded=False)


@pytest.fixture
def guarded_server() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator([CHAT], tokens=[TOKEN]) as emulator:
        yield emulator


@pytest.fixture
def plain_server() -> Iterator[Emulator]:
    """A server with the models of plain `lmsi serve`, all of them scripted."""
    with Emulator(build_catalog(scripted=True).models) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def nobody_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which either side logged a warning, or received one."""
    caplog.set_level(logging.INFO)
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.get_records("teardown")]
    complaints = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert complaints == []
