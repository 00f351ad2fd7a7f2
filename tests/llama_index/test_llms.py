"""`LMStudio` on the emulator: chat, completion, streams, settings, context lengths."""

import asyncio
import gc
import inspect
import threading
import warnings
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock, ThinkingBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from pydantic import BaseModel

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import chat_template
from lmstudio_integrations.errors import (
    LMStudioConfigWarning,
    LMStudioConnectionLostError,
    LMStudioUnreachableError,
    LMStudioValueError,
)
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.types.config import LlmLoadModelConfig
from tests.llama_index.scripted_server import CHAT, CONTEXT_LENGTH, SMALL, SMALL_CONTEXT_LENGTH, Server, raw
from tests.llama_index.test_messages import PNG
from tests.support.event_loop import ticks_during
from tests.support.requested import digest

NUMBERS = "0 1 2 3 4 5 6 7 8 9"


def generating(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


async def gathered(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


# The eight call paths -------------------------------------------------------------------------------------------------


def test_chat_responds(llm: LMStudio) -> None:
    response = llm.chat(generating("count"))
    assert response.message.role is MessageRole.ASSISTANT
    assert response.message.content == NUMBERS
    assert raw(response)["model"] == CHAT


async def test_achat_responds(llm: LMStudio) -> None:
    assert (await llm.achat(generating("count"))).message.content == NUMBERS


def test_stream_chat_streams_fragments(llm: LMStudio) -> None:
    found = list(llm.stream_chat(generating("count")))
    assert len(found) > 10
    assert "".join(chunk.delta or "" for chunk in found) == NUMBERS == found[-1].message.content


async def test_astream_chat_streams_fragments(llm: LMStudio) -> None:
    found = await gathered(await llm.astream_chat(generating("count")))
    assert len(found) > 10
    assert "".join(chunk.delta or "" for chunk in found) == NUMBERS == found[-1].message.content


def test_complete_is_a_turn_in_the_chat_template(server: Server, llm: LMStudio) -> None:
    assert llm.complete("count").text == NUMBERS
    assert server.conversation == [("user", [{"type": "text", "text": "count"}])]


def test_complete_of_a_formatted_prompt_continues_it(server: Server, llm: LMStudio) -> None:
    assert llm.complete("count", formatted=True).text == NUMBERS
    assert server.last_request.prompt == "count"


def test_complete_uses_the_users_own_format(server: Server) -> None:
    with server.llm(completion_to_prompt=lambda prompt: f"<|user|>{prompt}<|assistant|>") as llm:
        llm.complete("hi")
        assert server.last_request.prompt == "<|user|>hi<|assistant|>"
        llm.complete("count", formatted=True)
        assert server.last_request.prompt == "count"


@pytest.mark.parametrize("formatted", [False, True])
def test_stream_complete_streams_fragments(llm: LMStudio, formatted: bool) -> None:
    found = list(llm.stream_complete("count", formatted=formatted))
    assert "".join(chunk.delta or "" for chunk in found) == NUMBERS == found[-1].text


def test_reasoning_is_a_block(llm: LMStudio) -> None:
    text, reasoning = llm.chat(generating("think")).message.blocks
    assert isinstance(reasoning, ThinkingBlock)
    assert reasoning.content == "Let me see."
    assert text == TextBlock(text="Done now.")


def test_empty_output_is_one_chunk(llm: LMStudio) -> None:
    (chunk,) = llm.stream_chat(generating("nothing"))
    assert chunk.message.content == ""
    assert raw(chunk)["usage"]["prompt_tokens"] > 0


# Leaving early --------------------------------------------------------------------------------------------------------


def stopped(server: Server) -> bool:
    return [record.stop_reason for record in server.predictions] == ["userStopped"]


def test_closing_a_stream_stops_the_server(server: Server, llm: LMStudio) -> None:
    stream = llm.stream_chat(generating("for ever"))
    next(stream)
    stream.close()
    server.wait_for(lambda: stopped(server))


async def test_closing_the_undecorated_stream_stops_the_server_at_once(server: Server, llm: LMStudio) -> None:
    stream = await llm.astream_chat(generating("for ever"))
    assert isinstance(stream, AsyncGenerator)
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(server.wait_for, lambda: stopped(server))


@pytest.mark.slow
def test_a_stream_whose_loop_is_closed_stops_the_server_when_it_is_dropped(server: Server, llm: LMStudio) -> None:
    async def begin() -> Any:
        stream = await llm.astream_chat(generating("for ever"))
        await anext(stream)
        return stream

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(begin())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del stream
        gc.collect()
    server.wait_for(lambda: stopped(server))


def test_one_object_serves_one_loop_after_the_other(llm: LMStudio) -> None:
    for _ in range(3):
        assert asyncio.run(llm.achat(generating("count"))).message.content == NUMBERS


def test_a_stream_may_be_read_in_another_thread(llm: LMStudio) -> None:
    stream = llm.stream_chat(generating("count"))
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(chunk.delta or "" for chunk in stream))
    reader.start()
    reader.join(600)
    assert "".join(found) == NUMBERS


async def test_awaiting_does_not_block_the_loop(llm: LMStudio) -> None:
    async def stream() -> None:
        async for _ in await llm.astream_chat(generating("slow")):
            pass

    assert await ticks_during(stream()) > 20


# Settings -------------------------------------------------------------------------------------------------------------


def test_a_call_may_name_another_model(llm: LMStudio) -> None:
    assert raw(llm.chat(generating("count"), model=SMALL))["model"] == SMALL
    assert raw(llm.chat(generating("count")))["model"] == CHAT
    llm.model = SMALL
    assert raw(llm.chat(generating("count")))["model"] == SMALL


def test_load_settings_arrive_and_those_of_a_call_are_laid_over_them(server: Server) -> None:
    with server.llm(load_config={"seed": 5, "flashAttention": True}, context_length=2048, ttl=90) as llm:
        llm.chat(generating("count"), load_config=LlmLoadModelConfig(seed=6))
    (load,) = server.loads
    config = LlmLoadModelConfig.from_dict(load.config)
    assert (config.seed, config.flash_attention, config.context_length) == (6, True, 2048)
    assert server.loaded()[0].ttl_ms == 90_000


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "did you mean 'temperature'"),
        ("num_ctx", "did you mean 'context_length'"),
        ("keep_alive", "did you mean 'ttl'"),
        ("zzz", r"unknown setting 'zzz'; help\(LMStudio\) lists the known ones"),
    ],
)
def test_an_unknown_setting_is_rejected_with_the_nearest_name(llm: LMStudio, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        LMStudio(**dict[str, Any]({name: 1}))
    with pytest.raises(LMStudioValueError, match=hint):
        llm.chat(generating("count"), **{name: 1})


def test_the_names_of_other_integrations_are_understood() -> None:
    given: dict[str, Any] = {
        "model_name": "m",
        "base_url": "http://localhost:1234/v1",
        "request_timeout": 30.0,
        "api_key": "k",
        "additional_kwargs": {"seed": 4, "temperature": 0.5},
    }
    llm = LMStudio(**given, temperature=0.2)
    assert (llm.model, llm.host, llm.seed) == ("m", "http://localhost:1234/v1", 4)
    assert (llm.queue_timeout, llm.first_token_timeout, llm.idle_timeout, llm.timeout) == (30.0, 30.0, 30.0, None)
    assert llm.temperature == 0.2
    assert llm.api_token is not None


@pytest.mark.parametrize("clock", ["queue_timeout", "first_token_timeout", "idle_timeout"])
def test_a_request_timeout_beside_what_it_means_is_rejected(clock: str) -> None:
    for kind in (LMStudio, LMStudioEmbedding):
        with pytest.raises(ValueError, match=f"'request_timeout' is another name of '{clock}'"):
            kind(**dict[str, Any]({"request_timeout": 7, clock: 5}))


def test_extra_settings_of_migrants_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match="did you mean 'top_p'"):
        LMStudio(**dict[str, Any](additional_kwargs={"topp": 4}))


def test_extra_settings_that_are_no_dict_are_rejected() -> None:
    with pytest.raises(ValueError, match="additional_kwargs must be a dict of settings, got 'x'"):
        LMStudio(**dict[str, Any](additional_kwargs="x"))


def test_callbacks_see_the_load_and_the_prompt(server: Server) -> None:
    loaded: list[float] = []
    read: list[float] = []
    with server.llm(on_load_progress=loaded.append, on_prompt_progress=read.append) as llm:
        llm.chat(generating("count"))
    assert loaded[0] == 0.0
    assert loaded[-1] == read[-1] == 1.0


# What LlamaIndex reads -----------------------------------------------------------------------------------------------


def test_metadata_makes_no_request() -> None:
    with LMStudio(model="m", host="127.0.0.1:9") as llm:
        metadata = llm.metadata
    assert metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert (metadata.model_name, metadata.context_window, metadata.num_output) == ("m", 3900, 256 + 64)


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


def test_load_records_the_context_window(llm: LMStudio) -> None:
    assert llm.load() is llm
    assert llm.metadata.context_window == CONTEXT_LENGTH


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_load_measures_the_chat_template(server: Server, llm: LMStudio, asynchronous: bool) -> None:
    await llm.aload() if asynchronous else llm.load()
    template = llm._resolve_call({}).model().get_context_use(".").used
    assert template < 64
    metadata = server.llm(max_tokens=9).metadata
    assert (metadata.context_window, metadata.num_output) == (CONTEXT_LENGTH, 9 + template - len(["."]))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_model_without_a_chat_template_can_be_loaded(
    llm: LMStudio, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise EngineError("Error rendering prompt with jinja template")

    monkeypatch.setattr(chat_template, "render", fail)
    await llm.aload() if asynchronous else llm.load()
    assert llm.metadata.context_window == CONTEXT_LENGTH
    assert llm.metadata.num_output == 256 + 64


def test_the_first_response_reports_the_context_window(llm: LMStudio) -> None:
    llm.chat(generating("count"))
    assert llm.metadata.context_window == CONTEXT_LENGTH


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


def test_it_is_a_function_calling_model_of_llama_index() -> None:
    assert issubclass(LMStudio, FunctionCallingLLM)
    assert LMStudio.class_name() == "LMStudio"


def test_tokens_are_the_models_own(llm: LMStudio) -> None:
    assert len(llm.tokenize("one two three")) == 3
    assert asyncio.run(llm.atokenize("one two three")) == llm.tokenize("one two three")


# Images ---------------------------------------------------------------------------------------------------------------


def showing(**source: Any) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="what is it?"), ImageBlock(**source)])]


async def test_images_are_uploaded(server: Server, llm: LMStudio) -> None:
    llm.chat(showing(image=PNG))
    assert server.last_request.images == [digest(PNG)]
    await llm.achat(showing(image=PNG))
    assert server.last_request.images == [digest(PNG)]


# What can go wrong ----------------------------------------------------------------------------------------------------


def test_no_server_is_reported_plainly() -> None:
    with (
        LMStudio(model="m", host="127.0.0.1:9") as llm,
        pytest.raises(LMStudioUnreachableError, match=r"127\.0\.0\.1:9"),
    ):
        llm.chat(generating("count"))


async def test_a_line_that_breaks_is_an_error_not_an_end(llm: LMStudio) -> None:
    with pytest.raises(LMStudioConnectionLostError):
        list(llm.stream_chat(generating("drop")))
    with pytest.raises(LMStudioConnectionLostError):
        await gathered(await llm.astream_chat(generating("drop")))


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_an_empty_message_is_the_servers_to_handle(server: Server, llm: LMStudio, text: str) -> None:
    assert llm.chat(generating(text)).message.content
    assert llm.complete(text).text
    assert (await llm.acomplete(text)).text
    assert list(llm.stream_complete(text))[-1].text
    assert (await gathered(await llm.astream_chat(generating(text))))[-1].message.content
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
