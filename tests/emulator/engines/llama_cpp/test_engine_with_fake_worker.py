"""The engine with a fake worker: images, seeds, incomplete responses."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, EngineEvent, GenerateRequest, Image
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel


class BrokenOff:
    """A worker whose responses have no end; it records its requests."""

    def __init__(self) -> None:
        self.requested: dict[str, dict[str, Any]] = {}

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": [1, 2], "input_tokens": 2}

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.requested[path] = body
        yield {"content": "Once", "stop": False}


async def generate(worker: BrokenOff, request: GenerateRequest, *, error: str) -> list[EngineEvent]:
    """Return the events that come before an error."""
    fake: Any = worker
    model = LlamaCppModel(
        fake, context_length=64, slots=1, embedding=False, tools=True, calls=True, vision=True, seed=5
    )
    events: list[EngineEvent] = []
    with pytest.raises(EngineError, match=error):  # noqa: PT012 - events come before it
        async for event in model.generate(request):
            events.append(event)  # noqa: PERF401 - what came before the error counts
    return events


def image_request() -> GenerateRequest:
    chat = lms.Chat()
    image = lms.FileHandle(name="cat", identifier="c", size_bytes=4, file_type="image")
    chat.add_user_message("What?", images=[image])
    images = {"c": Image("cat", b"\x89PNG")}
    return GenerateRequest(lms.LlmPredictionConfig(), chat.to_history(), images=images, context_length=64)


async def test_a_vision_model_gets_the_image_and_the_seed_of_its_load() -> None:
    fake = BrokenOff()
    await generate(fake, image_request(), error="ended before it was complete")
    body = fake.requested["/v1/chat/completions"]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"]
    assert (body["seed"], body["max_tokens"]) == (5, 62)


async def test_the_text_of_a_response_without_an_end_comes_before_the_error() -> None:
    request = GenerateRequest(lms.LlmPredictionConfig(), prompt="x", context_length=64)
    assert lms.LlmPredictionFragment("Once") in await generate(
        BrokenOff(), request, error="ended before it was complete"
    )
