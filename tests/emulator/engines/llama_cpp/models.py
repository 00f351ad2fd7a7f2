"""Helpers for tests of the llama.cpp engine: models, requests, and the parts of a response."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, LlamaCppModel
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.functions import Tool

CHAT, EMBEDDING = "smollm2-135m-instruct", "text-embedding-all-minilm-l6-v2"
CONTEXT_LENGTH = 2048
FULL = WorkerParameters(
    model="m.gguf",
    context_length=512,
    slots=3,
    threads=2,
    projector="p.gguf",
    chat_template="T",
    gpu_layers=4,
    auto_fit=False,
    context_checkpoints=3,
    flash_attention=True,
    cache_types=("q8_0", "f16"),
)
"""Parameters of a worker, hardly one with its default."""
STEADY = lms.LlmPredictionConfig(
    temperature=0, top_k_sampling=40, top_p_sampling=0.95, min_p_sampling=0.05, repeat_penalty=1.1, seed=1
)
ADD = Tool.from_dict(
    {
        "function": {
            "name": "add",
            "description": "Add two numbers",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        }
    }
)
WEATHER = Tool.from_dict(
    {
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"$ref": "#/$defs/Place"}},
                "required": ["place"],
                "$defs": {
                    "Place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
                },
            },
        }
    }
)
TOOLS_TEMPLATE = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content or '' }}{% for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_request(**changes: Any) -> LoadRequest:
    settings: dict[str, Any] = {
        "key": CHAT,
        "kind": "llm",
        "weights": CHAT,
        "context_length": CONTEXT_LENGTH,
        "slots": 2,
    }
    return LoadRequest(**(settings | changes))


async def load(**changes: Any) -> LlamaCppModel:
    return await LlamaCppEngine(threads=1, offline=True).load(load_request(**changes), lambda _: None)


def chat_of(question: str, system: str = "You are a helpful assistant.") -> lms.Chat:
    chat = lms.Chat(system)
    chat.add_user_message(question)
    return chat


def history_of(question: str, system: str = "You are a helpful assistant.") -> ChatHistory:
    return chat_of(question, system).to_history()


def settings(**changes: Any) -> lms.LlmPredictionConfig:
    return STEADY.merged(lms.LlmPredictionConfig(**changes))


async def run(model: LlamaCppModel, history: ChatHistory | None = None, **changes: Any) -> list[EngineEvent]:
    """Return all events of a prediction, within a bounded time."""
    request = GenerateRequest(
        changes.pop("config", STEADY), history, context_length=changes.pop("context_length", CONTEXT_LENGTH), **changes
    )
    async with asyncio.timeout(600):
        return [event async for event in model.generate(request)]


async def rest_of(stream: AsyncIterator[EngineEvent]) -> list[EngineEvent]:
    """Return what a prediction still yields."""
    async with asyncio.timeout(600):
        return [event async for event in stream]


def text_of(events: list[EngineEvent]) -> str:
    return "".join(event.content for event in events if isinstance(event, lms.LlmPredictionFragment))


def finished(events: list[EngineEvent]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    return last


async def busy_slots(model: LlamaCppModel) -> int:
    return sum(slot["is_processing"] for slot in await model._worker.call("/slots"))
