"""Helpers for tests of the scripted engine: loading and generating without a server and without waiting."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.scripted import Rule, ScriptedEngine, ScriptedModel
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.functions import Tool

Rules = Iterable[Rule | Mapping[str, Any]]


@dataclass
class FakeSleep:
    """A `sleep` that returns at once and records the seconds."""

    seconds: list[float] = field(default_factory=list[float])

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def load(
    rules: Rules = (), *, kind: ModelKind = "llm", engine: ScriptedEngine | None = None, **settings: Any
) -> ScriptedModel:
    """Load a model with rules."""
    request = LoadRequest("a-model", kind, engine_settings={"rules": list(rules), **settings})
    return await (engine or ScriptedEngine(FakeSleep())).load(request, lambda _: None)


def always(text: str) -> list[Rule]:
    """Rules of a model that always writes the same."""
    return [Rule(then=[{"text": text}])]


def tool(name: str, /, **properties: Any) -> Tool:
    """A tool that requires all of its arguments."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return Tool.from_dict({"function": {"name": name, "parameters": parameters}})


def generate_request(
    question: str | lms.Chat = "Why?",
    *,
    tools: Iterable[Tool] = (),
    tool_choice: Literal["none", "auto", "required"] = "auto",
    context_length: int = 4096,
    **settings: Any,
) -> GenerateRequest:
    """A request with settings by their Python names."""
    chat = lms.Chat.from_history(question)
    return GenerateRequest(
        lms.LlmPredictionConfig.parse(settings),
        history=chat.to_history(),
        tools=tuple(tools),
        tool_choice=tool_choice,
        context_length=context_length,
    )


async def events_of(model: ScriptedModel, request: GenerateRequest) -> list[EngineEvent]:
    """All events of a prediction."""
    return [event async for event in model.generate(request)]


@dataclass(frozen=True)
class Response:
    """The events of a prediction, and their parts."""

    events: list[EngineEvent]

    @property
    def fragments(self) -> list[lms.LlmPredictionFragment]:
        return [event for event in self.events if isinstance(event, lms.LlmPredictionFragment)]

    @property
    def content(self) -> str:
        return "".join(fragment.content for fragment in self.fragments)

    @property
    def end(self) -> Finished:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1]

    def of_type(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def respond(rules: Rules = (), question: str | lms.Chat = "Why?", **request: Any) -> Response:
    """Load a model with rules and generate a response."""
    return Response(await events_of(await load(rules), generate_request(question, **request)))
