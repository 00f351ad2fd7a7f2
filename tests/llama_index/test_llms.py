"""`LMStudio` on the emulator: chat, completion, streams, settings, context lengths."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import BaseModel

from lmstudio_integrations import Client
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.errors import (
    LMStudioConfigWarning,
    LMStudioValueError,
)
from lmstudio_integrations.llama_index import LMStudio, _settings
from tests.llama_index.scripted_server import CHAT, CONTEXT_LENGTH, NUMBERS, SMALL, SMALL_CONTEXT_LENGTH, Server


def generating(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


# The eight call paths -------------------------------------------------------------------------------------------------


def test_complete_is_a_turn_in_the_chat_template(server: Server, llm: LMStudio) -> None:
    assert llm.complete("count").text == NUMBERS
    assert server.conversation == [("user", [{"type": "text", "text": "count"}])]


def test_complete_uses_the_users_own_format(server: Server) -> None:
    with server.llm(completion_to_prompt=lambda prompt: f"<|user|>{prompt}<|assistant|>") as llm:
        llm.complete("hi")
        assert server.last_request.prompt == "<|user|>hi<|assistant|>"
        llm.complete("count", formatted=True)
        assert server.last_request.prompt == "count"


def test_a_stream_may_continue_a_formatted_prompt(llm: LMStudio) -> None:
    found = list(llm.stream_complete("count", formatted=True))
    assert "".join(chunk.delta or "" for chunk in found) == NUMBERS == found[-1].text


# Settings -------------------------------------------------------------------------------------------------------------


def test_the_extra_settings_of_migrants_are_settings_and_are_not_given_twice() -> None:
    extra: dict[str, Any] = {"additional_kwargs": {"seed": 4, "temperature": 0.5}}
    llm = LMStudio(top_p=0.2, **extra)
    assert (llm.seed, llm.temperature, llm.top_p) == (4, 0.5, 0.2)
    with pytest.raises(ValueError, match="'temperature' is given twice: also in additional_kwargs; give it once"):
        LMStudio(temperature=0.2, **extra)


def test_extra_settings_of_migrants_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match="did you mean 'top_p'"):
        LMStudio(**dict[str, Any](additional_kwargs={"topp": 4}))
    with pytest.raises(ValueError, match="additional_kwargs must be a dict of settings, got 'x'"):
        LMStudio(**dict[str, Any](additional_kwargs="x"))


async def test_tokens_are_the_models_own(llm: LMStudio) -> None:
    assert len(llm.tokenize("one two three")) == 3
    assert await llm.atokenize("one two three") == llm.tokenize("one two three")


# What LlamaIndex reads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "context_length"),
    [
        ({"context_length": 2000}, 2000),
        ({"load_config": {"contextLength": 3000}}, 3000),
        ({"context_window": 7}, 7),
        ({"context_length": 2000, "context_window": 1000}, 1000),
    ],
)
def test_the_users_setting_of_the_context_window_counts_before_any_call(
    settings: dict[str, Any], context_length: int
) -> None:
    assert LMStudio(model="m", **settings).metadata.context_window == context_length


@pytest.mark.parametrize(
    ("settings", "output"),
    [
        ({}, 256 + 64),
        ({"max_tokens": 9}, 9 + 64),
        ({"max_tokens": False}, 256 + 64),
        ({"context_window": 100}, 50),
        ({"context_window": 1}, 0),
        ({"context_window": 8192, "max_tokens": 8192}, 4096),
    ],
)
def test_the_output_and_the_chat_template_get_at_most_half_of_the_context_window(
    settings: dict[str, Any], output: int
) -> None:
    assert LMStudio(model="m", **settings).metadata.num_output == output


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_load_measures_the_chat_template(server: Server, llm: LMStudio, asynchronous: bool) -> None:
    await llm.aload() if asynchronous else llm.load()
    with Client(server.address) as client:
        template = client.llm.model(CHAT).get_context_use(".").used
    assert template < 64
    metadata = server.llm(max_tokens=9).metadata
    assert (metadata.context_window, metadata.num_output) == (CONTEXT_LENGTH, 9 + template - len(["."]))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_model_without_a_chat_template_can_be_loaded(
    llm: LMStudio, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise EngineError("Error rendering prompt with jinja template")

    monkeypatch.setattr(words, "render", fail)
    await llm.aload() if asynchronous else llm.load()
    assert llm.metadata.context_window == CONTEXT_LENGTH
    assert llm.metadata.num_output == 256 + 64


def test_the_context_window_is_known_to_all_objects_of_the_process(server: Server, llm: LMStudio) -> None:
    llm.load()
    other = LMStudio(model=CHAT, host=f"http://{server.address}/v1")
    assert other.metadata.context_window == CONTEXT_LENGTH
    assert LMStudio(model=SMALL, host=server.address).metadata.context_window == 3900


def test_an_assumed_context_window_is_logged_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lmstudio_integrations.llama_index")
    for _ in range(2):
        assert server.llm(model="nope").metadata.context_window == 3900
    assert server.llm(model=CHAT).load().metadata.context_window == CONTEXT_LENGTH
    (message,) = caplog.messages
    assert message.startswith("LlamaIndex assumes a context window of 3900 tokens for the model 'nope', because")


def test_a_context_window_that_turns_out_smaller_than_advertised_is_warned_of_once(server: Server) -> None:
    with server.llm(model=SMALL) as llm:
        assert llm.metadata.context_window == 3900
        with pytest.warns(
            LMStudioConfigWarning,
            match=f"model '{SMALL}' is loaded .* {SMALL_CONTEXT_LENGTH} tokens, but LlamaIndex already got 3900",
        ) as caught:
            llm.chat(generating("count"))
        assert caught[0].filename == __file__
        llm.chat(generating("count"))
        assert llm.metadata.context_window == SMALL_CONTEXT_LENGTH


def test_a_context_window_that_the_user_promised_and_is_not_there_is_warned_of_with_the_remedy(server: Server) -> None:
    with server.llm(context_window=100_000) as llm:
        assert llm.metadata.context_window == 100_000
        with pytest.warns(LMStudioConfigWarning, match="already got 100000; lower context_window if you set it, else"):
            llm.chat(generating("count"))


def test_the_payload_of_events_names_the_model(llm: LMStudio) -> None:
    payload = llm.to_payload()
    assert payload["class_name"] == "LMStudio"
    assert (payload["model"], payload["model_name"], payload["temperature"]) == (CHAT, CHAT, None)


# What can go wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_an_empty_prompt_is_the_servers_to_handle(server: Server, llm: LMStudio, text: str) -> None:
    assert llm.complete(text).text
    assert (await llm.acomplete(text)).text
    assert list(llm.stream_complete(text))[-1].text
    assert server.conversation == [("user", [{"type": "text", "text": text}])]


ROLE_AND_TEXT = {"role": "user", "content": "hi"}
NOT_MESSAGES: list[tuple[Any, str]] = [
    ([ROLE_AND_TEXT], r"message 0 must be a ChatMessage; got \{'role': .*\}; write ChatMessage\(\*\*message\)$"),
    ([ChatMessage("hi"), ("user", "hi")], r"message 1 must be a ChatMessage; got \('user', 'hi'\)$"),
    ("hi", r"messages must be a list of ChatMessage; got 'hi'; write \[ChatMessage\(text\)\]$"),
    (ChatMessage("hi"), "messages must be a list of ChatMessage; got ChatMessage"),
    (5, "messages must be a list of ChatMessage; got 5$"),
]
NOT_TEXTS: list[tuple[Any, str]] = [(value, "^the prompt must be a string; got ") for value in (None, 5, ["a"])]
NOT_TEMPLATES: list[tuple[Any, str]] = [
    ("hi", r"the prompt must be a PromptTemplate; got 'hi'; write PromptTemplate\(text\)$"),
    ([ChatMessage("hi")], r"the prompt must be a PromptTemplate; got \[ChatMessage"),
]
INPUTS: dict[str, tuple[list[tuple[Any, str]], Callable[[str, LMStudio, Any], Any]]] = {
    "{}chat": (NOT_MESSAGES, lambda name, llm, value: getattr(llm, name)(value)),
    "{}chat messages": (NOT_MESSAGES, lambda name, llm, value: getattr(llm, name)(messages=value)),
    "{}chat_with_tools": (NOT_MESSAGES, lambda name, llm, value: getattr(llm, name)([], chat_history=value)),
    "{}complete": (NOT_TEXTS, lambda name, llm, value: getattr(llm, name)(value)),
    "{}complete prompt": (NOT_TEXTS, lambda name, llm, value: getattr(llm, name)(prompt=value, formatted=True)),
    "{}structured_predict": (NOT_TEMPLATES, lambda name, llm, value: getattr(llm, name)(Person, value)),
}
"""By method, and what is passed by name: values that it rejects with their error, and its call."""


class Person(BaseModel):
    name: str


@pytest.mark.parametrize("prefix", ["", "a", "stream_", "astream_"])
@pytest.mark.parametrize("way", INPUTS)
async def test_invalid_input_is_rejected_before_anything_is_sent(way: str, prefix: str) -> None:
    values, call = INPUTS[way]
    name, llm = way.format(prefix).partition(" ")[0], LMStudio(model="m", host="127.0.0.1:9")
    for value, error in values:
        with pytest.raises(LMStudioValueError, match=error):
            await returned(call(name, llm, value))


async def returned(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize("prefix", ["", "a"])
async def test_an_invalid_history_for_a_call_is_rejected(prefix: str) -> None:
    call = getattr(LMStudio(model="m", host="127.0.0.1:9"), f"{prefix}predict_and_call")
    with pytest.raises(LMStudioValueError, match="message 0 must be a ChatMessage"):
        await returned(call([], "hi", [ROLE_AND_TEXT]))


def test_the_context_windows_of_only_so_many_models_are_kept() -> None:
    count = 2 * _settings._MOST_RECORDED
    keys: list[_settings.Key] = [((None,), ("",), f"model {number}") for number in range(count)]
    for key in keys:
        _settings.record(key, 4096)
    assert len(_settings._context_windows.values()) == _settings._MOST_RECORDED
    assert [_settings.window_of(key).reported for key in (keys[-1], keys[0])] == [4096, None]
