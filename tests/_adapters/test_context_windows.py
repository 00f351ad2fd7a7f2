"""A prompt that does not fit into the context window is never cut in silence, on any way to generate."""

import asyncio
import base64
import pickle
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.client.models import chat_templates, rendering
from lmstudio_integrations.client.predictions.entries import context_check
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests.support.adapters import LANGUAGE_MODELS, covering
from tests.support.web import PIXEL as PNG

WINDOW = 300
TURNS = [f"Turn {number}: " + "all of it matters " * 5 for number in range(41)]
"""Far more than the context window, and a multiple of what the model reads if it is cut."""

FITS = ["Hello"]

Metadata = dict[str, Any]
Way = Callable[[Any, Sequence[str], dict[str, Any]], Metadata]


def messages(turns: Sequence[str]) -> list[BaseMessage]:
    return [AIMessage(turn) if number % 2 else HumanMessage(turn) for number, turn in enumerate(turns)]


def chat_messages(turns: Sequence[str]) -> list[ChatMessage]:
    return [ChatMessage(turn, role="assistant" if number % 2 else "user") for number, turn in enumerate(turns)]


def look_up(city: str) -> str:
    """Look the weather up."""
    return city


def whole(chunks: Sequence[AIMessageChunk]) -> Metadata:
    return sum(chunks[1:], chunks[0]).response_metadata


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


async def collected_later(stream: Any) -> list[Any]:
    return await collected(await stream)


def info(result: Any) -> Metadata:
    found: Metadata = result.generations[0][0].generation_info
    return found


def raw(response: Any) -> Metadata:
    return {**response.raw, **response.raw["stats"]}


CHAT: dict[str, Way] = {
    "invoke": lambda llm, turns, given: llm.invoke(messages(turns), **given).response_metadata,
    "ainvoke": lambda llm, turns, given: asyncio.run(llm.ainvoke(messages(turns), **given)).response_metadata,
    "stream": lambda llm, turns, given: whole(list(llm.stream(messages(turns), **given))),
    "astream": lambda llm, turns, given: whole(asyncio.run(collected(llm.astream(messages(turns), **given)))),
    "batch": lambda llm, turns, given: llm.batch([messages(turns)], **given)[0].response_metadata,
    "tools": lambda llm, turns, given: llm.bind_tools([look_up]).invoke(messages(turns), **given).response_metadata,
}
TEXT: dict[str, Way] = {
    "generate": lambda llm, turns, given: info(llm.generate(["\n".join(turns)], **given)),
    "agenerate": lambda llm, turns, given: info(asyncio.run(llm.agenerate(["\n".join(turns)], **given))),
    "streaming": lambda llm, turns, given: info(
        llm.generate(["\n".join(turns)], callbacks=[], streaming=True, **given)
    ),
}
LLAMA_INDEX: dict[str, Way] = {
    "chat": lambda llm, turns, given: raw(llm.chat(chat_messages(turns), **given)),
    "achat": lambda llm, turns, given: raw(asyncio.run(llm.achat(chat_messages(turns), **given))),
    "stream_chat": lambda llm, turns, given: raw(list(llm.stream_chat(chat_messages(turns), **given))[-1]),
    "astream_chat": lambda llm, turns, given: raw(
        asyncio.run(collected_later(llm.astream_chat(chat_messages(turns), **given)))[-1]
    ),
    "complete": lambda llm, turns, given: raw(llm.complete("\n".join(turns), formatted=True, **given)),
    "acomplete": lambda llm, turns, given: raw(asyncio.run(llm.acomplete("\n".join(turns), formatted=True, **given))),
}
WAYS = [
    pytest.param(make, way, id=f"{make.__name__}-{name}")
    for make, ways in ((ChatLMStudio, CHAT), (LMStudioLLM, TEXT), (LMStudio, LLAMA_INDEX))
    for name, way in ways.items()
]
every_way = pytest.mark.parametrize(("make", "way"), WAYS)


def rule(fault: dict[str, Any], **when: Any) -> dict[str, Any]:
    return {"when": when, "then": [fault, {"text": "An answer."}]}


MODELS = [
    ModelEntry(key="honest", context_length=WINDOW, max_context_length=8192),
    ModelEntry(key="cuts", vision=True, context_length=WINDOW, rules=(rule({"fault": "truncate"}),)),
    ModelEntry(key="empty", context_length=WINDOW, rules=(rule({"fault": "empty"}),)),
    ModelEntry(
        key="at-limit",
        context_length=WINDOW,
        rules=(rule({"fault": "empty", "stop_reason": "contextLengthReached"}),),
    ),
    ModelEntry(key="silent", context_length=WINDOW, rules=({"then": [{"text": ""}]},)),
    ModelEntry(key="endless", context_length=WINDOW, rules=({"then": [{"text": "on and on " * 200}]},)),
    ModelEntry(key="strict", rules=(rule({"fault": "template"}, late_system=True),)),
    ModelEntry(key="lenient"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    preset = {"identifier": "mine", "contextOverflowPolicy": "rollingWindow"}
    with Emulator(MODELS, catalog={"preset": [preset]}, auto_evict=False) as running:
        yield running


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that a check makes."""
    made: list[str] = []
    for name in ("render", "count_tokens"):
        original = getattr(context_check, name)

        def recorded(*args: Any, name: str = name, original: Any = original) -> Any:
            made.append(name)
            return original(*args)

        monkeypatch.setattr(context_check, name, recorded)
    return made


@every_way
def test_a_prompt_that_does_not_fit_is_an_error_with_the_numbers(server: Emulator, make: Any, way: Way) -> None:
    llm = make(model="honest", host=server.address)
    with pytest.raises(lms.LMStudioContextOverflowError, match=f"a context length of {WINDOW}") as caught:
        way(llm, TURNS, {})
    assert caught.value.limit == WINDOW
    assert caught.value.used is not None
    assert caught.value.used > WINDOW
    assert isinstance(caught.value, ContextOverflowError) is (make is not LMStudio)
    assert "load the model with context_length=" in str(caught.value)


@every_way
def test_a_server_that_cuts_in_silence_is_noticed(server: Emulator, make: Any, way: Way, requests: list[str]) -> None:
    llm = make(model="cuts", host=server.address)
    with pytest.warns(lms.LMStudioTruncationWarning, match=r"the server dropped \d+ of the \d+ tokens of the prompt"):
        metadata = way(llm, TURNS, {})
    handle = lms.Client(server.address).llm.model("cuts")
    is_text = make is LMStudioLLM or "complete" in str(way.__code__.co_names)
    sent = (
        handle.count_tokens("\n".join(TURNS))
        if is_text
        else handle.get_context_use({"messages": [each.to_dict() for each in _native(TURNS)]}).used
    )
    assert metadata["dropped_tokens"] + server.predictions[-1].stats["promptTokensCount"] >= sent
    assert metadata["finish_reason"] == "stop"
    assert len(requests) == (1 if is_text else 2)


def _native(turns: Sequence[str]) -> Any:
    chat = lms.Chat()
    for number, turn in enumerate(turns):
        (chat.add_assistant_response if number % 2 else chat.add_user_message)(turn)
    return chat.to_history().messages


@every_way
def test_a_short_prompt_costs_no_further_request(server: Emulator, make: Any, way: Way, requests: list[str]) -> None:
    for model in ("honest", "cuts", "empty", "silent"):
        assert "dropped_tokens" not in way(make(model=model, host=server.address), FITS, {})
    assert requests == []


@pytest.mark.parametrize("adapter", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
def test_a_response_that_is_rightly_empty_is_no_error(server: Emulator, adapter: Any, requests: list[str]) -> None:
    adapter.call(adapter.make(model="silent", host=server.address), "word " * 200)
    assert requests


def test_an_empty_response_to_a_prompt_that_just_fits_is_no_error(server: Emulator, requests: list[str]) -> None:
    llm = ChatLMStudio(model="silent", host=server.address)
    added = llm.invoke("a").usage_metadata["input_tokens"] - 1  # type: ignore[index]
    response = llm.invoke("a " * (WINDOW - 2 - added))
    assert response.usage_metadata is not None
    assert WINDOW * 0.98 < response.usage_metadata["input_tokens"] < WINDOW
    assert requests


@pytest.mark.parametrize(("make", "way"), WAYS[::4])
@pytest.mark.parametrize("policy", ["truncateMiddle", "rollingWindow"])
def test_a_policy_that_cuts_reports_what_it_dropped_without_a_warning(
    server: Emulator, make: Any, way: Way, policy: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metadata = way(make(model="honest", host=server.address), TURNS, {"context_overflow_policy": policy})
    assert metadata["dropped_tokens"] > WINDOW


OWN_POLICIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "the default": ({}, "stopAtLimit"),
    "none": ({"context_overflow_policy": None}, None),
    "chosen": ({"context_overflow_policy": "truncateMiddle"}, "truncateMiddle"),
    "a preset": ({"preset": "mine"}, "rollingWindow"),
    "the default beside a preset": ({"preset": "mine", "context_overflow_policy": "auto"}, "rollingWindow"),
    "chosen beside a preset": ({"preset": "mine", "context_overflow_policy": "stopAtLimit"}, "stopAtLimit"),
    "none beside a preset": ({"preset": "mine", "context_overflow_policy": None}, "rollingWindow"),
    "by key": ({"extra": {"llm.prediction.contextOverflowPolicy": "truncateMiddle"}}, "truncateMiddle"),
}


@pytest.mark.parametrize("as_field", [True, False])
@pytest.mark.parametrize(("name", "own"), covering(LANGUAGE_MODELS, OWN_POLICIES))
def test_the_policy_is_the_users_if_there_is_one(server: Emulator, name: str, own: str, as_field: bool) -> None:
    adapter, (settings, policy) = LANGUAGE_MODELS[name], OWN_POLICIES[own]
    fields, given = (settings, {}) if as_field else ({}, settings)
    adapter.call(adapter.make(model="honest", host=server.address, **fields), "Hello", **given)
    assert server.predictions[-1].config.get("contextOverflowPolicy") == policy


RESTORED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "configured": (
        ChatLMStudio,
        lambda llm: llm.configurable_fields(temperature=ConfigurableField(id="t")).with_config(configurable={"t": 0}),
    ),
    "validated": (LMStudioLLM, lambda llm: LMStudioLLM.model_validate(llm.model_dump())),
    "pickled": (LMStudio, lambda llm: pickle.loads(pickle.dumps(llm))),
    "from a dict": (LMStudio, lambda llm: LMStudio.from_dict(llm.to_dict())),
}
"""Ways to make an object from all the fields of another one."""


@pytest.mark.parametrize(("make", "restore"), RESTORED.values(), ids=RESTORED)
@pytest.mark.parametrize("preset", ["mine", None])
def test_the_default_policy_stays_the_default_of_an_object_that_is_made_from_another(
    server: Emulator, make: Any, restore: Callable[[Any], Any], preset: str | None
) -> None:
    llm = restore(make(model="honest", host=server.address, preset=preset))
    llm.complete("Hello") if make is LMStudio else llm.invoke("Hello")
    assert server.predictions[-1].config["contextOverflowPolicy"] == ("rollingWindow" if preset else "stopAtLimit")


@pytest.mark.parametrize(("make", "way"), WAYS[::4])
def test_what_the_server_says_can_be_trusted_on_request(
    server: Emulator, make: Any, way: Way, requests: list[str]
) -> None:
    assert "dropped_tokens" not in way(make(model="cuts", host=server.address), TURNS, {"check_context": False})
    assert requests == []


@pytest.mark.parametrize(("make", "way"), WAYS[::4])
def test_a_response_that_reaches_the_end_of_the_window_is_of_that_length(server: Emulator, make: Any, way: Way) -> None:
    assert way(make(model="endless", host=server.address), FITS, {})["finish_reason"] == "length"


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_overflow_completes_what_the_object_knows_of_the_model(
    make: Any, streamed: bool, asynchronous: bool
) -> None:
    names = ("stream", "invoke") if make is ChatLMStudio else ("stream_chat", "chat")
    name = ("a" if asynchronous else "") + names[0 if streamed else 1]
    with Emulator([ModelEntry(key="m", context_length=WINDOW)]) as server:
        llm = make(model="m", host=server.address)
        with pytest.raises(lms.LMStudioContextOverflowError):
            (CHAT if make is ChatLMStudio else LLAMA_INDEX)[name](llm, TURNS, {})
        assert (llm.profile["max_input_tokens"] if make is ChatLMStudio else llm.metadata.context_window) == WINDOW


def test_a_check_that_fails_leaves_the_response(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise lms.LMStudioServerError("unknown endpoint")
        yield

    monkeypatch.setattr(context_check, "count_tokens", fails)
    response = ChatLMStudio(model="cuts", host=server.address).invoke(messages(TURNS))
    assert response.text == "An answer."
    assert "dropped_tokens" not in response.response_metadata


def test_a_check_loads_no_model(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    render = rendering.render

    def unload_first(*args: Any) -> Any:
        server.unload("cuts")
        return render(*args)

    monkeypatch.setattr(context_check, "render", unload_first)
    assert ChatLMStudio(model="cuts", host=server.address).invoke(messages(TURNS)).text == "An answer."
    assert "cuts" not in [instance.identifier for instance in lms.Client(server.address).llm.list_loaded()]


@pytest.mark.parametrize("timeout", ["idle_timeout", "queue_timeout"])
def test_a_server_that_does_not_answer_the_check_holds_nobody(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, timeout: str
) -> None:
    used: list[float | None] = []
    render = rendering.render

    def recorded(operation: Any, *args: Any) -> Any:
        used.append(operation.timeouts[timeout])
        return render(operation, *args)

    monkeypatch.setattr(context_check, "render", recorded)
    for seconds in (None, 60.0, 1.5):
        with warnings.catch_warnings(action="ignore"):
            settings: dict[str, Any] = {timeout: seconds}
            ChatLMStudio(model="cuts", host=server.address, **settings).invoke(messages(TURNS))
    assert used == [5.0, 5.0, 1.5]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_that_is_cancelled_during_the_check_keeps_its_response(
    server: Emulator, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    checking = threading.Event()

    def render_for_ever(operation: Any, *_: Any) -> Any:
        checking.set()
        yield from operation.pause(60)
        raise AssertionError("the check was not cancelled")

    monkeypatch.setattr(context_check, "render", render_for_ever)
    chat: Any = {"messages": [each.to_dict() for each in _native(TURNS)]}
    if asynchronous:
        async with lms.AsyncClient(server.address) as client:
            stream = client.llm.lazy_model("cuts").respond_stream(chat, check_context=True)
            reading = asyncio.create_task(stream.wait_for_result())
            assert await asyncio.to_thread(checking.wait, 5)
            stream.cancel()
            assert (await reading).content == "An answer."
    else:
        with lms.Client(server.address) as sync_client:
            sync_stream = sync_client.llm.lazy_model("cuts").respond_stream(chat, check_context=True)
            sync_reading = asyncio.create_task(asyncio.to_thread(sync_stream.wait_for_result))
            assert await asyncio.to_thread(checking.wait, 5)
            sync_stream.cancel()
            assert (await sync_reading).content == "An answer."


def test_images_are_never_counted(server: Emulator, requests: list[str]) -> None:
    image = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
    shown = [*messages(TURNS), HumanMessage([{"type": "text", "text": "What is this?"}, image])]
    response = ChatLMStudio(model="cuts", host=server.address).invoke(shown)
    assert "dropped_tokens" not in response.response_metadata
    assert requests == []


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_the_host_that_responded_is_asked(make: Any) -> None:
    entry = ModelEntry(key="cuts", context_length=WINDOW, rules=(rule({"fault": "truncate"}),))
    with Emulator([entry]) as other, Emulator([entry]) as server:
        llm = make(model="cuts", host=[other.address, server.address])
        with pytest.warns(lms.LMStudioTruncationWarning):
            assert (CHAT["invoke"] if make is ChatLMStudio else LLAMA_INDEX["chat"])(llm, TURNS, {})["dropped_tokens"]
        assert len(other.predictions) + len(server.predictions) == 1


async def test_the_native_client_checks_on_request(server: Emulator) -> None:
    chat = {"messages": [each.to_dict() for each in _native(TURNS)]}
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("cuts")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (await model.respond(chat)).stats.dropped_tokens is None
        with pytest.warns(lms.LMStudioTruncationWarning):
            assert (await model.respond(chat, check_context=True)).stats.dropped_tokens
    with lms.Client(server.address) as client, pytest.warns(lms.LMStudioTruncationWarning):
        client.llm.model("cuts").act(lms.Chat.from_history(chat), [look_up], check_context=True)


# System messages in the middle of a conversation ---------------------------------------------------------------------

LATE = ["Be brief.", "Hello", "Hi.", "Be polite.", "Bye"]
ROLES = ["system", "user", "assistant", "system", "user"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
@pytest.mark.parametrize(("model", "stays"), [("lenient", True), ("strict", False)])
def test_a_late_system_message_stays_where_the_template_takes_it(
    server: Emulator, make: Any, model: str, stays: bool, asynchronous: bool
) -> None:
    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    conversation: Any = [
        kinds[role](text) if make is ChatLMStudio else ChatMessage(text, role=role)
        for role, text in zip(ROLES, LATE, strict=True)
    ]
    llm = make(model=model, host=server.address)
    for _ in range(2):
        if asynchronous:
            asyncio.run((llm.ainvoke if make is ChatLMStudio else llm.achat)(conversation))
        else:
            (llm.invoke if make is ChatLMStudio else llm.chat)(conversation)
        sent = [message["role"] for message in server.predictions[-1].messages]
        assert sent == (ROLES if stays else ["system", "user", "assistant", "user"])
    if make is ChatLMStudio:
        assert llm.profile["mid_conversation_system_messages"] is stays
        assert llm.get_num_tokens_from_messages(conversation) > 0


def test_another_failure_is_not_taken_for_an_answer_about_the_template(
    server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, failures = rendering.render, [lms.LMStudioServerError("the server is busy")]

    def failing_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return render(*args)

    monkeypatch.setattr(chat_templates, "render", failing_once)
    llm = ChatLMStudio(model="lenient", host=server.address)
    sent: list[list[str]] = []
    for _ in range(2):
        llm.invoke([HumanMessage("Hello"), AIMessage("Hi."), SystemMessage("Be polite."), HumanMessage("Bye")])
        sent.append([message["role"] for message in server.predictions[-1].messages])
    assert sent == [["system", "user", "assistant", "user"], ["user", "assistant", "system", "user"]]
