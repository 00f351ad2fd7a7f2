"""The engine with a fake worker: images, seeds, incomplete responses."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import GenerateRequest, Image
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import LlmPredictionFragment


class BrokenOff:
    """A worker whose responses have no end; it records its requests."""

    def __init__(self) -> None:
        self.requested: dict[str, dict[str, Any]] = {}

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": [1, 2], "input_tokens": 2}

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.requested[path] = body
        yield {"content": "Once", "stop": False}


def vision_model(fake: Any) -> LlamaCppModel:
    return LlamaCppModel(fake, context_length=64, slots=1, embedding=False, tools=True, vision=True, seed=5)


def image_request(**config: Any) -> GenerateRequest:
    chat = Chat()
    image = FileHandle(name="cat", identifier="c", size_bytes=4, file_type="image")
    chat.add_user_message("What?", images=[image])
    settings = LlmPredictionConfig(**config)
    return GenerateRequest(settings, chat.to_history(), images={"c": Image("cat", b"\x89PNG")}, context_length=64)


async def test_a_vision_model_gets_the_image_and_the_seed_of_its_load() -> None:
    fake = BrokenOff()
    with pytest.raises(EngineError, match="ended before it was complete"):
        [event async for event in vision_model(fake).generate(image_request())]
    body = fake.requested["/v1/chat/completions"]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"]
    assert body["seed"] == 5
    assert body["max_tokens"] == 62


async def test_an_image_under_a_manual_template_is_rejected() -> None:
    template = {"type": "manual", "manualPromptTemplate": {"beforeUser": "Q: "}}
    with pytest.raises(EngineError, match="manual template"):
        [event async for event in vision_model(BrokenOff()).generate(image_request(prompt_template=template))]


async def test_a_response_without_an_end_is_an_error() -> None:
    fake: Any = BrokenOff()
    model = LlamaCppModel(fake, context_length=64, slots=1, embedding=False, tools=False, vision=False)
    events: list[object] = []

    async def collect() -> None:
        async for event in model.generate(GenerateRequest(LlmPredictionConfig(), prompt="x", context_length=64)):
            events.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(EngineError, match="ended before it was complete"):
        await collect()
    assert any(isinstance(event, LlmPredictionFragment) and event.content == "Once" for event in events)
