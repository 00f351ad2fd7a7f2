"""No token reaches LlamaIndex's spans, events and callbacks, whichever way a call gets it."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import root_dispatcher
from pydantic import BaseModel, Field, SecretStr

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index import LMStudio
from tests.llama_index.scripted_server import EMBEDDING, Server
from tests.support.leaks import TOKEN, shown_by, shows_token

MESSAGES = [ChatMessage("count")]


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """Return the weather of a city."""
    return city


PROMPT = PromptTemplate("person")
TOOL = FunctionTool.from_defaults(weather)
CALLS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("chat", "achat", "stream_chat", "astream_chat"), (MESSAGES,)),
    **dict.fromkeys(("complete", "acomplete", "stream_complete", "astream_complete"), ("count",)),
    **dict.fromkeys(("predict_and_call", "apredict_and_call"), ([TOOL], "weather")),
}
STRUCTURED = (
    *("structured_predict", "astructured_predict"),
    *("stream_structured_predict", "astream_structured_predict"),
)
SECRETS: list[dict[str, Any]] = [
    {"api_token": TOKEN},
    {"api_key": TOKEN},
    {"api_tokn": TOKEN},
    {"host": f"ws://user:{TOKEN[15:]}@localhost"},
    {"headers": {"X-Key": TOKEN[15:]}},
    {"default_headers": {"X-Key": TOKEN[15:]}},
]


class Spans(NullSpanHandler):
    """Records the arguments of every span."""

    seen: list[str] = Field(default_factory=list[str])

    def span_enter(self, id_: str, bound_args: inspect.BoundArguments, instance: Any = None, **_: Any) -> None:  # type: ignore[override]  # it takes whatever else comes
        self.seen.append(f"{id_} {bound_args!r} {instance!r}")


class Events(BaseEventHandler):
    """Records every event."""

    seen: list[str] = Field(default_factory=list[str])

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(repr(event))


class Callbacks(BaseCallbackHandler):
    """Records the payload of every callback."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[str] = []

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", *_: Any, **__: Any) -> str:
        self.seen.append(repr(payload))
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, *_: Any, **__: Any) -> None:
        self.seen.append(repr(payload))

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        pass


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """All that is recorded by spans and events."""
    spans, events = Spans(), Events()
    monkeypatch.setattr(root_dispatcher, "span_handlers", [*root_dispatcher.span_handlers, spans])
    monkeypatch.setattr(root_dispatcher, "event_handlers", [*root_dispatcher.event_handlers, events])
    return lambda: [*spans.seen, *events.seen]


async def finish(result: Any) -> None:
    """Await what is awaited, and read what is a stream."""
    if inspect.isawaitable(result):
        result = await result
    if inspect.isasyncgen(result) or hasattr(result, "__anext__"):
        async for _ in result:
            pass
    elif inspect.isgenerator(result):
        for _ in result:
            pass


def call(llm: LMStudio, name: str, given: dict[str, Any]) -> Any:
    """Call a method, with settings if it accepts them."""
    if name in STRUCTURED:
        return getattr(llm, name)(Person, PROMPT, llm_kwargs=given)
    return getattr(llm, name)(*CALLS[name], **given)


@pytest.mark.parametrize("name", [*CALLS, *STRUCTURED])
@pytest.mark.parametrize("given", SECRETS, ids=str)
async def test_a_secret_in_a_call_is_rejected_before_spans_and_events_begin(
    llm: LMStudio, seen: Callable[[], list[str]], name: str, given: dict[str, Any]
) -> None:
    callbacks = Callbacks()
    llm.callback_manager = CallbackManager([callbacks])
    with pytest.raises(LMStudioValueError) as caught:
        await finish(call(llm, name, given))
    assert seen() == callbacks.seen == []
    assert not shows_token(shown_by(caught.value))


@pytest.mark.parametrize("name", [*CALLS, *STRUCTURED])
async def test_hidden_secrets_of_a_call_are_accepted_and_not_shown(seen: Callable[[], list[str]], name: str) -> None:
    callbacks = Callbacks()
    secrets = {"api_token": SecretStr(TOKEN), "headers": {"X-Key": SecretStr(TOKEN[15:])}}
    with Server(tokens=[TOKEN]) as server, server.llm(headers={"X-Other": TOKEN[15:]}) as llm:
        llm.callback_manager = CallbackManager([callbacks])
        await finish(call(llm, name, secrets))
    assert seen()
    assert callbacks.seen
    assert not shows_token("".join(seen() + callbacks.seen))


def test_settings_of_a_structured_call_are_checked_by_position_too(
    llm: LMStudio, seen: Callable[[], list[str]]
) -> None:
    with pytest.raises(LMStudioValueError, match="SecretStr"):
        llm.structured_predict(Person, PROMPT, {"api_token": TOKEN})
    assert seen() == []
    assert llm.structured_predict(Person, PROMPT).name == "Ann Lee"


def test_the_text_of_a_prompt_may_look_like_a_secret(llm: LMStudio) -> None:
    assert llm.chat(messages=[ChatMessage(f"count {TOKEN}")]).message.content
    assert llm.complete(prompt=f"count {TOKEN}").text
    assert llm.predict(PromptTemplate("count {password}"), password=TOKEN)


def test_an_embedding_model_with_secrets_does_not_show_them(seen: Callable[[], list[str]]) -> None:
    callbacks = Callbacks()
    with (
        Server(tokens=[TOKEN]) as server,
        server.embedding(model=EMBEDDING, api_token=TOKEN, headers={"X-Key": TOKEN[15:]}) as model,
    ):
        model.callback_manager = CallbackManager([callbacks])
        assert model.get_text_embedding_batch(["rain", "sun"])
        assert model.get_query_embedding("rain")
    assert seen()
    assert callbacks.seen
    assert not shows_token("".join(seen() + callbacks.seen))
