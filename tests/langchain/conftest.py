"""A scripted server and the requests that it received."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from tests._adapters.ways import LANGCHAIN, whole
from tests.support.endless import ENDLESS
from tests.support.requested import Requested
from tests.support.served import served
from tests.support.strict.fixture import strict, strict_findings

__all__ = ["strict", "strict_findings"]

CHAT, OTHER, PLAIN, EMBEDDING = "chatty", "other-model", "no-tools", "vectors"

COUNTED = " ".join(str(n) for n in range(30))
"""The response to "count"."""

CITY = {"tool": "weather", "arguments": {"city": "Oslo"}, "id": "c1"}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "^count"}, "then": [{"text": COUNTED}]},
    {"when": {"last": "^for ever"}, "then": ENDLESS},
    {"when": {"last": "^think on"}, "then": [{"reasoning": "Let me see, let me see."}, {"text": "Done."}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
    {"when": {"last": "^weather", "tools": ["weather"]}, "then": [{"text": "I look."}, CITY]},
    {"when": {"last": "^both", "tools": ["weather"]}, "then": [CITY, {**CITY, "id": "c2"}]},
    {"when": {"last": "^broken", "tools": ["weather"]}, "then": [{**CITY, "malformed": '{"city": "Os'}]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"role": "tool"}, "then": [{"text": "The tool said {last}."}]},
    {"when": {"last": "^break"}, "then": [{"text": "so far "}, {"error": "the engine gave up"}]},
    {"when": {"last": "^stall"}, "then": [{"text": "wait "}, {"fault": "stall"}]},
    {"when": {"last": "^freeze"}, "then": [{"fault": "stall"}]},
    {
        "when": {"last": "^muse", "structured": True},
        "then": [{"reasoning": "{Hm}"}, {"text": '{"name": "Ann", "age": 7}'}],
    },
    {"when": {"last": "^drop"}, "then": [{"text": "going "}, {"fault": "drop"}]},
    {"when": {"last": "^json", "structured": True}, "then": [{"text": '{"name": "Ann", "age": 7}'}]},
    {"when": {"last": "^half", "structured": True}, "then": [{"text": '{"name": "Ann", "ag'}]},
    {"when": {"last": "^odd", "structured": True}, "then": [{"text": '{"name": "Ann", "age": "old"}'}]},
]
MODELS = [
    ModelEntry(key=CHAT, vision=True, context_length=4096, slots=3, rules=tuple(RULES)),
    ModelEntry(key=OTHER),
    ModelEntry(key=PLAIN, tools=False, rules=tuple(RULES)),
    ModelEntry(key=EMBEDDING, kind="embedding", embedding_length=16, context_length=512, max_context_length=512),
]


class Server(Emulator):
    """An emulator that records its requests. Models evict each other only if a test enables it."""

    def __init__(self, models: Sequence[ModelEntry] | None = MODELS, **settings: Any) -> None:
        super().__init__(models, **{"auto_evict": False, **settings})

    @property
    def last_request(self) -> Requested:
        """The last request."""
        return Requested.of(self.predictions[-1])

    def chat(self, **settings: Any) -> ChatLMStudio:
        return ChatLMStudio(**{"model": CHAT, "host": self.address, **settings})

    def llm(self, **settings: Any) -> LMStudioLLM:
        return LMStudioLLM(**{"model": CHAT, "host": self.address, **settings})

    def embeddings(self, **settings: Any) -> LMStudioEmbeddings:
        return LMStudioEmbeddings(**{"model": EMBEDDING, "host": self.address, **settings})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let langchain-core say that its v3 events are in beta, and leave out what a module says is beyond its model."""
    here = Path(__file__).parent
    deselected: list[pytest.Item] = []
    for item in [item for item in items if here in item.path.parents]:
        item.add_marker(pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"))
        module = item.getparent(pytest.Module)
        if module is not None and item.name.partition("[")[0] in getattr(module.obj, "BEYOND_THE_MODEL", ()):
            deselected.append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in deselected]


server = served(scope="function", make=Server)
"""A scripted server of one's own."""


# Call paths -----------------------------------------------------------------------------------------------------------

Invoke = Callable[..., AIMessage]


def _message_by(name: str) -> Invoke:
    def generate(llm: Any, question: Any, **given: Any) -> AIMessage:
        message = whole(LANGCHAIN[name](llm, question, **given))
        assert isinstance(message, AIMessageChunk if "stream" in name else AIMessage)
        return message

    return generate


WAYS: dict[str, Invoke] = {name: _message_by(name) for name in LANGCHAIN}


@pytest.fixture(params=WAYS)
def generate(request: pytest.FixtureRequest) -> Invoke:
    """Each call path, with the complete message as result."""
    return WAYS[request.param]
