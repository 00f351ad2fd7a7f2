"""The standard suites of langchain-tests, unchanged, on a scripted server; each test has an event loop of its own.

Left out by their flags: audio, PDF (LM Studio takes neither), and the recordings of HTTP, which we do not speak.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

import httpx
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from tests.langchain.conftest import Server
from tests.support.web import PIXEL
from tools.leaves import has_leaf

core_load = import_module("langchain_core.load.load")
"""The module; the package has a function of the same name."""

MODEL, OTHER, EMBEDDING = "standard-chat", "standard-other", "standard-vectors"
TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"

NAME = {"customer_name": "{last}"}
JOKE = '{"setup": "Why do cats sit on keyboards?", "punchline": "They like the mouse."}'
STYLE = {"answer_style": "Pirate"}
RULES: list[dict[str, Any]] = [
    {"when": {"role": "tool"}, "then": [{"text": "The answer is {last}."}]},
    {"when": {"tools": ["magic_function"]}, "then": [{"tool": "magic_function", "arguments": {"input": 3}}]},
    {"when": {"tools": ["greeting_generator"]}, "then": [{"tool": "greeting_generator", "arguments": STYLE}]},
    {"when": {"tools": ["unicode_customer"]}, "then": [{"tool": "unicode_customer", "arguments": NAME}]},
    {"when": {"tools": ["get_weather"]}, "then": [{"tool": "get_weather", "arguments": {"location": "Paris"}}]},
    {"when": {"last": "joke", "structured": True}, "then": [{"text": JOKE}]},
    {"when": {"last": "^Think"}, "then": [{"reasoning": "One, two, three."}, {"text": "Four."}]},
]
"""The responses of a model where the suites check more than the form of a response."""

MODELS = [
    ModelEntry(key=MODEL, vision=True, context_length=32768, rules=tuple(RULES)),
    ModelEntry(key=OTHER, vision=True, context_length=32768, rules=tuple(RULES)),
    ModelEntry(key=EMBEDDING, kind="embedding"),
]


@pytest.fixture(scope="module", autouse=True)
def standard_server() -> Iterator[None]:
    """One server for all; the suites make models from plain parameters, so the environment names its address."""
    with Server(MODELS) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSTUDIO_HOST", running.address)
        yield


@pytest.fixture(autouse=True)
def local_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the suite a local image instead of one from the web."""

    def get(url: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, content=PIXEL, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    if not has_leaf("image_downloads"):
        return

    from lmstudio_integrations.client.files import fetch

    async def get_image(_url: str, **_: Any) -> bytes:
        return PIXEL

    monkeypatch.setattr(fetch, "fetch", get_image)


@pytest.fixture(autouse=True)
def known_to_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put our class on core's list of what may be loaded, which is closed to third parties.

    Users say `load(…, allowed_objects=[ChatLMStudio])`; the suite says `"all"`, which means that list.
    """
    path = tuple(ChatLMStudio.lc_id())
    everything = core_load._get_default_allowed_class_paths("all") | {path}
    monkeypatch.setitem(core_load._default_class_paths_cache, "all", everything)


def generate(model: BaseChatModel, question: str, *, stream: bool) -> AIMessage:
    """Return the response, non-streaming or summed from chunks."""
    if not stream:
        return model.invoke(question)
    chunks = list(model.stream(question))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


class TestChatUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLMStudio

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"LM_API_TOKEN": TOKEN}, {"model": MODEL}, {"api_token": TOKEN}


class _ChatIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLMStudio

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "temperature": 0, "allow_image_download": True}

    @property
    def model_override_value(self) -> str:
        return OTHER

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return has_leaf("image_downloads")

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Any]]:
        details = ["cache_read_input", "reasoning_output"]
        return {"invoke": details, "stream": details}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        question = "Say it a second time, please."
        generate(self.model_again(), question, stream=stream)
        return generate(self.model_again(), question, stream=stream)

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return generate(self.model_again(), "Think!", stream=stream)

    def model_again(self) -> BaseChatModel:
        return ChatLMStudio(**self.chat_model_params)


class TestChatIntegration(_ChatIntegration):
    """With structured output by grammar."""


class TestChatIntegrationByToolCalls(_ChatIntegration):
    """With structured output by tool calls."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "function_calling"}


class TestChatIntegrationByJsonMode(_ChatIntegration):
    """With structured output as any JSON object."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_mode"}


class _Embeddings:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LMStudioEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": EMBEDDING}


class TestEmbeddingsUnit(_Embeddings, EmbeddingsUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"LM_API_TOKEN": TOKEN}, {"model": EMBEDDING}, {"api_token": TOKEN}


class TestEmbeddingsIntegration(_Embeddings, EmbeddingsIntegrationTests):
    """With the same model."""
