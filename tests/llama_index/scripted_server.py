"""A scripted server and the requests that it received."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.contract.models import CHAT, CONTEXT_LENGTH, EMBEDDING, LONG, MODELS, RULES
from tests.support.requested import Requested

__all__ = ["CHAT", "CONTEXT_LENGTH", "EMBEDDING", "LONG", "SMALL", "SMALL_CONTEXT_LENGTH", "Server", "raw"]

SMALL, SMALL_CONTEXT_LENGTH = "small", 1024
_MODELS = (*MODELS, ModelEntry(key=SMALL, context_length=SMALL_CONTEXT_LENGTH, rules=RULES))


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
