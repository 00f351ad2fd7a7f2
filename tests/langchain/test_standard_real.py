"""The parts of the standard suites that a model of 135 million parameters can honestly pass, on its real weights."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*was not trained for tool use"),
]

_SCRIPTED = "its grammar takes this model many seconds, and `test_standard.py` runs it on a scripted one"
BEYOND_THE_MODEL = {
    "test_agent_loop": "a model of this size calls no tool of its own accord, only when it must",
    **dict.fromkeys(
        (
            *("test_structured_output_optional_param", "test_structured_output_pydantic_2_v1"),
            *("test_structured_output_async", "test_unicode_tool_call_integration", "test_tool_choice"),
        ),
        _SCRIPTED,
    ),
}
"""Tests that are deselected (the suite lets nothing be overridden), and why."""

MODEL, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"


@pytest.fixture(scope="module", autouse=True)
def real_server() -> Iterator[None]:
    """One server with the bundled weights for all."""
    with Emulator() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSTUDIO_HOST", running.address)
        yield


@pytest.mark.exhaustive
class TestRealChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLMStudio

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "temperature": 0, "seed": 1, "max_tokens": 64}


class TestRealEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return LMStudioEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": EMBEDDING}
