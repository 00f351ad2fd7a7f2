"""What the tests of the scripted engine share: loading and asking without a server, on a clock that does not run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.scripted import Rule, ScriptedEngine, ScriptedModel
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.results import LlmPredictionFragment
from lmstudio_integrations.types.tools import Tool

Rules = Iterable[Rule | Mapping[str, Any]]


@dataclass
class Naps:
    """A `sleep` that returns at once and remembers for how long it was asked to wait."""

    seconds: list[float] = field(default_factory=list[float])

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def load(
    rules: Rules = (), *, kind: ModelKind = "llm", engine: ScriptedEngine | None = None, **options: Any
) -> ScriptedModel:
    """Load a model with rules."""
    request = LoadRequest("a-model", kind, options={"rules": list(rules), **options})
    return await (engine or ScriptedEngine(Naps())).load(request, lambda _: None)


def says(text: str) -> list[Rule]:
    """Rules of a model that always says the same."""
    return [Rule(then=[{"text": text}])]


def tool(name: str, /, **properties: Any) -> Tool:
    """A tool that requires all of its arguments."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return Tool.from_dict({"function": {"name": name, "parameters": parameters}})


def asking(
    question: str | Chat = "Why?",
    *,
    tools: Iterable[Tool] = (),
    tool_choice: Literal["none", "auto", "required"] = "auto",
    context_length: int = 4096,
    **settings: Any,
) -> GenerateRequest:
    """A request with settings by their Python names."""
    chat = Chat.from_history(question)
    return GenerateRequest(
        LlmPredictionConfig.parse(settings),
        history=chat.to_history(),
        tools=tuple(tools),
        tool_choice=tool_choice,
        context_length=context_length,
    )


async def events_of(model: ScriptedModel, request: GenerateRequest) -> list[EngineEvent]:
    """All events of a prediction."""
    return [event async for event in model.generate(request)]


@dataclass(frozen=True)
class ResponseReader:
    """The events of a prediction, seen from several sides."""

    events: list[EngineEvent]

    @property
    def fragments(self) -> list[LlmPredictionFragment]:
        return [event for event in self.events if isinstance(event, LlmPredictionFragment)]

    @property
    def content(self) -> str:
        return "".join(fragment.content for fragment in self.fragments)

    @property
    def end(self) -> Finished:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1]

    def of_type(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def answer(rules: Rules = (), question: str | Chat = "Why?", **request: Any) -> ResponseReader:
    """Load a model with rules and ask it."""
    return ResponseReader(await events_of(await load(rules), asking(question, **request)))
