"""`ChatLMStudio(model="plugin:owner/name")`: a generator plugin in place of a model."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage, SystemMessage

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM, register
from tests.langchain.conftest import Invoke, Server
from tests.langchain.test_images import BLOCK
from tests.support.generators import GENERATOR, MODEL, OF_MODELS, PLUGINS, City, pier

CALL = {"name": "pier", "args": {"destination": "island"}, "id": "c1", "type": "tool_call"}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server([], plugins=PLUGINS) as running:
        yield running


@pytest.fixture
def writer(server: Server) -> ChatLMStudio:
    return server.chat(model=MODEL)


# Responses


def test_a_message_has_what_is_known_and_no_more(server: Server, writer: ChatLMStudio, generate: Invoke) -> None:
    message = generate(writer, [SystemMessage("Be brief."), HumanMessage("count")])
    assert message.text == "0 1 2 3"
    assert message.response_metadata == {
        "model_provider": "lmstudio",
        "model_name": GENERATOR,
        "host": server.address,
    }
    assert message.usage_metadata is None
    assert message.additional_kwargs == {}
    assert [each["role"] for each in server.predictions[0].messages] == ["system", "user"]


def test_an_image_is_uploaded(server: Server, writer: ChatLMStudio, generate: Invoke) -> None:
    generate(writer, [HumanMessage([{"type": "text", "text": "count"}, BLOCK])])
    assert server.predictions[0].messages[0]["content"][1]["type"] == "file"


def test_ending_a_stream_early_stops_the_plugin(server: Server, writer: ChatLMStudio) -> None:
    stream = writer.stream("stall")
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")


def test_a_string_is_enough(server: Server) -> None:
    register()
    assert init_chat_model(f"lmstudio:{MODEL}", host=server.address).invoke("count").text == "0 1 2 3"


def test_the_profile_has_nothing_of_models(writer: ChatLMStudio) -> None:
    writer.invoke("count")
    profile = writer.profile
    assert profile["text_outputs"]
    assert not any(profile.get(name) for name in ("structured_output", "temperature", "tool_choice"))
    assert not {"max_input_tokens", "open_weights", "name"} & profile.keys()


# Tools


@pytest.mark.parametrize("choice", [None, "auto"])
def test_a_tool_call_is_a_tool_call(writer: ChatLMStudio, generate: Invoke, choice: str | None) -> None:
    message = generate(writer.bind_tools([pier], tool_choice=choice), "call it")
    assert (message.text, message.tool_calls) == ("I look.", [CALL])


def test_a_call_that_cannot_be_read_is_invalid(writer: ChatLMStudio, generate: Invoke) -> None:
    message = generate(writer.bind_tools([pier]), "broken")
    assert [call["name"] for call in message.invalid_tool_calls] == ["pier"]


@pytest.mark.parametrize("choice", ["any", "pier"])
def test_a_required_call_that_does_not_come_is_logged(
    server: Server, writer: ChatLMStudio, generate: Invoke, caplog: pytest.LogCaptureFixture, choice: str
) -> None:
    bound = writer.bind_tools([pier, City], tool_choice=choice)
    with caplog.at_level(logging.WARNING):
        assert generate(bound, "count").text == "0 1 2 3"
    assert f"'{GENERATOR}': a tool call was required" in caplog.text
    assert len(server.predictions) == 1
    assert len(server.predictions[0].tools) == (2 if choice == "any" else 1)


def test_an_agent_runs_tools(writer: ChatLMStudio) -> None:
    state: Any = create_agent(writer, [pier]).invoke({"messages": [HumanMessage("call it")]})
    assert state["messages"][-1].text == "The tool said pier 7, to the island."


def test_a_tool_gives_structured_output(writer: ChatLMStudio) -> None:
    structured = writer.with_structured_output(City, method="function_calling")
    assert structured.invoke("city") == asyncio.run(structured.ainvoke("city")) == City(name="Oslo")
    with pytest.raises(ValueError, match="no complete tool call"):
        structured.invoke("count")


# What only models have


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_by_grammar_is_an_error(writer: ChatLMStudio, method: Any) -> None:
    with pytest.raises(LMStudioValueError, match=r"but not response_format; .*method='function_calling'"):
        writer.with_structured_output(City, method=method).invoke("city")


@pytest.mark.parametrize(("given", "names"), OF_MODELS.values(), ids=OF_MODELS)
def test_settings_of_models_are_one_error(server: Server, generate: Invoke, given: dict[str, Any], names: str) -> None:
    text = f"'{GENERATOR}' accepts a conversation and tools, but not {names}$"
    with pytest.raises(LMStudioValueError, match=text):
        generate(server.chat(**{"model": MODEL, **given}), "count")
    with pytest.raises(LMStudioValueError, match=text):
        generate(server.chat(model=MODEL), "count", **given)
    assert not server.predictions


def test_settings_that_ask_for_nothing_of_models_are_none(server: Server) -> None:
    nothing = {"temperature": None, "logprobs": False, "check_context": True, "context_overflow_policy": None}
    writer = server.chat(model=MODEL, max_retries=1, unload_on_close=True, timeout=30, **nothing)
    with writer:
        assert writer.invoke("count", response_format={"type": "text"}).text == "0 1 2 3"


ON_MODELS: dict[str, Callable[[Server], Any]] = {
    "tokens": lambda server: server.chat(model=MODEL).get_token_ids("a"),
    "number of tokens": lambda server: server.chat(model=MODEL).get_num_tokens("a"),
    "tokens of messages": lambda server: server.chat(model=MODEL).get_num_tokens_from_messages([("user", "a")]),
    "load": lambda server: server.chat(model=MODEL).load(),
    "aload": lambda server: asyncio.run(server.chat(model=MODEL).aload()),
    "hosts": lambda server: server.chat(model=MODEL).hosts(),
    "ahosts": lambda server: asyncio.run(server.chat(model=MODEL).ahosts()),
    "completion": lambda server: LMStudioLLM(model=MODEL, host=server.address, temperature=0).invoke("a"),
    "embedding": lambda server: LMStudioEmbeddings(model=MODEL, host=server.address).embed_query("a"),
    "embedding async": lambda server: asyncio.run(
        LMStudioEmbeddings(model=MODEL, host=server.address).aembed_documents(["a"])
    ),
}


@pytest.mark.parametrize("call", ON_MODELS.values(), ids=ON_MODELS)
def test_what_needs_a_model_is_an_error_that_says_so(server: Server, call: Callable[[Server], Any]) -> None:
    with pytest.raises(LMStudioValueError, match=f"model='{MODEL}' is a generator plugin"):
        call(server)


def test_a_generator_may_be_chosen_for_one_call(server: Server) -> None:
    chat = server.chat(model="unknown", temperature=None)
    assert chat.invoke("count", model=MODEL).text == "0 1 2 3"
