"""The models of the emulator for tests of the registry."""

from typing import Any

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.bare_client import Wire, prediction_request

WAITING = {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]}
BEFORE = {"when": {"last": "^Before"}, "then": [{"fault": "stall"}]}
CRASHING = {"when": {"last": "^Crash"}, "then": [{"text": "One"}, {"fault": "crash"}]}
STUCK = {"when": {"load": True}, "then": [{"fault": "stall"}]}
LARGE = {"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}

CHAT = ModelEntry(
    key="llama-3.2-1b-instruct",
    path="hugging-quants/Llama-3.2-1B-Instruct-Q8_0-GGUF/llama-3.2-1b-instruct-q8_0.gguf",
    aliases=("llama",),
    rules=(WAITING, BEFORE, CRASHING),
)
OTHER = ModelEntry(key="qwen", path="hugging-quants/Qwen-GGUF/qwen.gguf", vision=True)
EMBEDDING = ModelEntry(key="nomic", kind="embedding", path="nomic-ai/nomic-embed-text-v1.5-GGUF/nomic.gguf")
SLOW = ModelEntry(key="slow", rules=(STUCK,))
HUGE = ModelEntry(key="huge", rules=(LARGE,))
ABSENT = ModelEntry(key="absent", downloaded=False)
ENTRIES = (CHAT, OTHER, EMBEDDING, SLOW, HUGE, ABSENT)


def kinds(packets: list[dict[str, Any]]) -> list[str]:
    """Return the types of packets, runs of progress as one."""
    found = [packet["type"] for packet in packets]
    return [kind for index, kind in enumerate(found) if not index or kind != found[index - 1]]


def loaded(server: Emulator) -> list[str]:
    return [info.identifier for info in server.loaded()]


def predict(me: Wire, text: str) -> int:
    return me.open("predict", prediction_request(CHAT.key, text))
