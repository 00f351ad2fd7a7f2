"""A scripted server and the requests that it received."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.support.endless import ENDLESS
from tests.support.requested import Requested

CHAT, SMALL, EMBEDDING = "chatty", "small", "vectors"
CONTEXT_LENGTH, SMALL_CONTEXT_LENGTH = 8192, 1024

NUMBERS = "0 1 2 3 4 5 6 7 8 9"
"""The response to `count`."""

CITY = {"tool": "weather", "arguments": {"city": "Oslo"}, "id": "c1"}
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^count"}, "then": [{"text": NUMBERS}]},
    {"when": {"last": "^for ever"}, "then": ENDLESS},
    {"when": {"last": "^nothing"}, "then": []},
    {"when": {"last": "^think only"}, "then": [{"reasoning": "Hmm, well."}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done now."}]},
    {"when": {"last": "^weather", "tools": ["weather"]}, "then": [{"text": "I look. "}, CITY]},
    {"when": {"last": "^both", "tools": ["weather"]}, "then": [CITY, {**CITY, "id": "c2"}]},
    {"when": {"last": "^same id", "tools": ["weather"]}, "then": [CITY, CITY]},
    {"when": {"last": "^broken", "tools": ["weather"]}, "then": [
        {"text": "So: "}, {**CITY, "malformed": '{"city": "Os'},
    ]},
    {"when": {"last": "This does not fit", "structured": True}, "then": [{"text": "I cannot."}]},  # nor the second time
    {"when": {"last": "^bare", "tools": ["now"]}, "then": [{"tool": "now"}]},
    {"when": {"last": "^box", "tools": ["Box_int_"]}, "then": [{"tool": "Box_int_", "arguments": {"value": 3}}]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"role": "tool"}, "then": [{"text": "The tool said {last}."}]},
    {"when": {"last": "^fail"}, "then": [{"error": "the engine gave up", "suggestion": "try another model"}]},
    {"when": {"last": "^drop"}, "then": [{"text": "going "}, {"fault": "drop"}]},
    {"when": {"last": "^person", "structured": True}, "then": [{"text": '{"name": "Ann Lee", "age": 7}'}]},
)  # fmt: skip
_MODELS = (
    ModelEntry(key=CHAT, vision=True, context_length=CONTEXT_LENGTH, rules=RULES),
    ModelEntry(key=SMALL, context_length=SMALL_CONTEXT_LENGTH, rules=RULES),
    ModelEntry(key=EMBEDDING, kind="embedding", embedding_length=16),
)


class Server(Emulator):
    """An emulator that records its requests. Models evict each other only if a test enables it."""

    def __init__(self, models: Sequence[ModelEntry] = _MODELS, **settings: Any) -> None:
        super().__init__(models, **{"auto_evict": False, **settings})

    @property
    def last_request(self) -> Requested:
        """The last request."""
        return Requested.of(self.predictions[-1])

    @property
    def prediction_count(self) -> int:
        """The number of predictions requested."""
        return len(self.predictions)

    @property
    def embedded(self) -> list[str]:
        """The texts that were embedded."""
        return [record.text for record in self.embedded_texts]

    @property
    def conversation(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Role and parts of each message of the last request."""
        history = self.last_request.history
        assert history is not None, "the last request was a raw completion"
        messages = history.to_dict()["messages"]
        return [(message["role"], message["content"]) for message in messages]

    def llm(self, **settings: Any) -> LMStudio:
        """Return a language model on this server."""
        return LMStudio(**{"model": CHAT, "host": self.address, **settings})

    def embedding(self, **settings: Any) -> LMStudioEmbedding:
        """Return an embedding model on this server."""
        return LMStudioEmbedding(**{"model": EMBEDDING, "host": self.address, **settings})


def raw(response: ChatResponse | CompletionResponse) -> dict[str, Any]:
    """Return the fields of a response other than its message."""
    assert isinstance(response.raw, dict)
    return response.raw
