"""Agents of `langchain` and LangGraph on a scripted server."""

import asyncio
import base64
from functools import partial
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from typing_extensions import TypedDict

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioServerError, LMStudioValueError
from tests.langchain.conftest import Server
from tests.support.requested import Requested
from tests.support.served import served
from tests.support.web import PIXEL

MODEL, GPT = "agent-model", "gpt-4o-like-model"
CONTEXT_LENGTH = 2000

LOOK = {"tool": "look_up", "arguments": {"city": "Oslo"}}
FINAL = {"tool": "Report", "arguments": {"city": "Oslo", "degrees": 3}}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "Context Extraction"}, "then": [{"text": "They spoke of Oslo."}]},
    {"when": {"last": "^broken", "tools": ["look_up"]}, "then": [{**LOOK, "malformed": '{"city": "Os'}]},
    {
        "when": {"last": "^both", "round": 1},
        "then": [{"text": "Twice."}, LOOK, {"tool": "look_up", "arguments": {"city": "Rome"}}],
    },
    {"when": {"last": "^weather", "tools": ["look_up"], "round": 1}, "then": [{"reasoning": "I must look."}, LOOK]},
    {"when": {"last": "^around", "round": 1}, "then": [{"text": "First. "}, LOOK, {"text": "Then."}]},
    {"when": {"last": "^plainly", "role": "user"}, "then": [{"text": "It rains in Oslo."}]},
    {"when": {"tools": ["Report"]}, "then": [FINAL]},
    {"when": {"structured": True}, "then": [{"text": '{"city": "Oslo", "degrees": 3}'}]},
    {"when": {"last": "^fail"}, "then": [{"error": "the engine gave up"}]},
    {"when": {"role": "tool"}, "then": [{"text": "It is like this: {last}."}]},
]
MODELS = [
    ModelEntry(key=MODEL, context_length=CONTEXT_LENGTH, rules=tuple(RULES)),
    ModelEntry(key=GPT, context_length=CONTEXT_LENGTH, rules=tuple(RULES)),
]


class Report(BaseModel):
    """The weather."""

    city: str
    degrees: int


agents = served(MODELS, scope="function", make=Server)
"""A server whose models know what to do."""


@pytest.fixture
def looked() -> list[str]:
    """The cities that were looked up."""
    return []


@pytest.fixture
def look_up(looked: list[str]) -> Any:
    """A tool that remembers its calls."""

    @tool
    def look_up(city: str) -> str:
        """Look the weather up."""
        looked.append(city)
        return f"rain in {city}"

    return look_up


def generate(question: str) -> Any:
    return {"messages": [HumanMessage(question)]}


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_agent_does_not_execute_a_broken_call(
    agents: Server, look_up: Any, looked: list[str], version: str, streamed: bool
) -> None:
    """Core repairs half arguments of a stream into a valid call, unless they are invalidated."""
    agent = create_agent(agents.chat(model=MODEL, output_version=version), [look_up])
    if streamed:
        for _ in agent.stream(generate("broken"), stream_mode="messages"):
            pass
    else:
        last = agent.invoke(generate("broken"))["messages"][-1]
        assert last.invalid_tool_calls
    assert looked == []


@pytest.mark.parametrize("response_format", [Report, ProviderStrategy(Report)])
def test_an_agent_gives_a_structured_response_beside_its_tools(
    agents: Server, look_up: Any, looked: list[str], response_format: Any
) -> None:
    agent = create_agent(agents.chat(model=MODEL), [look_up], response_format=response_format)
    state = agent.invoke(generate("weather?"))
    assert state["structured_response"] == Report(city="Oslo", degrees=3)
    assert state["messages"][-1].response_metadata["predictions_count"] == 2
    assert looked == ["Oslo"]
    sent = [(bool(each.tools), each.config.structured is not None) for each in map(Requested.of, agents.predictions)]
    assert sent == [(True, False), (True, False), (False, True)]


@pytest.mark.parametrize("response_format", [Report, ProviderStrategy(Report)])
def test_an_agent_without_tools_gets_its_response_by_grammar(agents: Server, response_format: Any) -> None:
    agent = create_agent(agents.chat(model=MODEL), [], response_format=response_format)
    assert agent.invoke(generate("weather?"))["structured_response"] == Report(city="Oslo", degrees=3)
    assert len(agents.predictions) == 1
    assert set(agents.predictions[0].config) == {"structured", "contextOverflowPolicy"}


def test_no_tools_are_not_sent(agents: Server) -> None:
    agents.chat(model=MODEL).bind_tools([]).invoke("plainly")
    assert set(agents.predictions[0].config) == {"contextOverflowPolicy"}


class Where(TypedDict):
    """Where to look, and for how long."""

    city: str
    days: int


@pytest.mark.parametrize("given", [{}, {"arg_types": {"city": str, "days": int}}])
def test_a_runnable_becomes_a_tool_with_the_fields_of_its_input(given: Any) -> None:
    def look(where: Where) -> str:
        return f"{where['days']} days in {where['city']}"

    looking = RunnableLambda(look).as_tool(name="look_up", description="Look.", **given)
    call = {"tool": "look_up", "arguments": {"city": "Oslo", "days": 3}}
    rules = ({"when": {"role": "user"}, "then": [call]}, {"then": [{"text": "{last}"}]})
    with Server([ModelEntry(key="caller", rules=rules)]) as server:
        messages = create_agent(server.chat(model="caller"), [looking]).invoke(generate("Hello"))["messages"]
        (function,) = server.predictions[0].tools
    assert messages[-1].text == "3 days in Oslo"
    assert function["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }


@pytest.mark.parametrize("streamed", [True, False])
def test_an_agent_recovers_from_a_response_without_the_required_call(agents: Server, streamed: bool) -> None:
    """`ToolStrategy` requires a call; LangChain calls the model again when it writes text instead."""
    llm = agents.chat(model=MODEL, required_tool_fallback=False)
    agent = create_agent(llm, [], response_format=ToolStrategy(Report))
    if streamed:
        state: dict[str, Any] = {}
        for mode, part in agent.stream(generate("plainly"), stream_mode=["messages", "values"]):
            state = part if mode == "values" and isinstance(part, dict) else state
    else:
        state = agent.invoke(generate("plainly"))
    assert state["structured_response"] == Report(city="Oslo", degrees=3)
    assert [message.text for message in state["messages"][:2]] == ["plainly", "It rains in Oslo."]
    assert len(agents.predictions) == 2


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("is_async", [False, True])
def test_events_have_the_call_of_a_message_that_goes_on_with_text(
    agents: Server, look_up: Any, looked: list[str], version: str, is_async: bool
) -> None:
    agent = create_agent(agents.chat(model=MODEL, output_version=version), [look_up])

    async def events() -> list[tuple[str, list[Any]]]:
        run = await agent.astream_events(generate("around"), version="v3")
        return [(await message.text, await message.tool_calls) async for message in run.messages]

    if is_async:
        seen = asyncio.run(events())
    else:
        run = agent.stream_events(generate("around"), version="v3")
        seen = [("".join(message.text), message.tool_calls.get()) for message in run.messages]
    (text, calls), (last, none) = seen
    assert (text, [call["args"] for call in calls]) == ("First. Then.", [{"city": "Oslo"}])
    assert (last, none, looked) == ("It is like this: rain in Oslo.", [], ["Oslo"])


def subagents_read(agent: Any) -> tuple[list[str], list[Any]]:
    """Return the texts and the arguments of the calls of subagents, both read as they come."""
    texts, calls = list[str](), list[Any]()
    for subagent in agent.stream_events(generate("Hello"), version="v3").subagents:
        for name, item in subagent.interleave("messages", "tool_calls"):
            if name == "messages":
                texts.append("".join(item.text))
            else:
                calls.append(item.input)
    return texts, calls


async def subagents_read_async(agent: Any) -> tuple[list[str], list[Any]]:
    """Return the same, read by two tasks."""

    async def texts_of(messages: Any) -> list[str]:
        return [await message.text async for message in messages]

    async def arguments_of(calls: Any) -> list[Any]:
        return [call.input async for call in calls]

    run = await agent.astream_events(generate("Hello"), version="v3")
    (both,) = [
        await asyncio.gather(texts_of(subagent.messages), arguments_of(subagent.tool_calls))
        async for subagent in run.subagents
    ]
    return both


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
def test_messages_and_calls_of_a_subagent_are_complete_if_they_are_read_side_by_side(
    look_up: Any, is_async: bool
) -> None:
    """LangGraph drops what nobody reads at that time."""
    deepagents = pytest.importorskip("deepagents", reason="needs the group cookbook")
    task = {"tool": "task", "arguments": {"description": "look", "subagent_type": "looker"}}
    rules = (
        {"when": {"role": "user", "last": "^look"}, "then": [{"text": "I look."}, LOOK]},
        {"when": {"role": "user"}, "then": [{"text": "I ask."}, task]},
        {"then": [{"text": "It is like this: {last}."}]},
    )
    looker = {"name": "looker", "description": "Looks.", "system_prompt": "Look.", "tools": [look_up]}
    with Server([ModelEntry(key="deep", rules=rules)]) as server:
        agent: Any = deepagents.create_deep_agent(server.chat(model="deep"), subagents=[looker])
        read = asyncio.run(subagents_read_async(agent)) if is_async else subagents_read(agent)
    assert (*read,) == (["I look.", "It is like this: rain in Oslo."], [{"city": "Oslo"}])


def test_an_agent_with_tools_ends_with_the_text_where_the_required_call_is_missing(
    agents: Server, look_up: Any
) -> None:
    agent = create_agent(agents.chat(model=MODEL), [look_up], response_format=ToolStrategy(Report))
    state = agent.invoke(generate("plainly"))
    assert state.get("structured_response") is None
    assert state["messages"][-1].text == "It rains in Oslo."


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_strict_checkpoint_gives_back_the_run_of_an_agent(
    version: str, look_up: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As every checkpointer of LangGraph does with `LANGGRAPH_STRICT_MSGPACK=true`."""
    broken = {"tool": "look_up", "malformed": '{"city": "Os'}
    rules = (
        {"when": {"role": "user"}, "then": [{"reasoning": "I look."}, LOOK, broken]},
        {"then": [{"text": "Rain."}]},
    )
    image = {"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}
    saver = InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    config: Any = {"configurable": {"thread_id": "1"}}
    first, second = ({"messages": [HumanMessage(["How is the sky?", image])]} for _ in range(2))
    with Server([ModelEntry(key="looker", vision=True, rules=rules)]) as server:
        llm = server.chat(model="looker", output_version=version, logprobs=True, repair_tool_calls=False)
        agent: Any = create_agent(llm, [look_up], checkpointer=saver)
        agent.invoke(first, config)
        *_, state = agent.stream(second, config, stream_mode="values")
    assert agent.get_state(config).values == state
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "tool", "ai"] * 2
    assert "logprobs" in state["messages"][1].response_metadata
    assert "eserializ" not in caplog.text


def test_a_summary_that_overflows_is_tried_again_with_less(agents: Server) -> None:
    """The middleware looks for langchain-core's `ContextOverflowError`, of which this package's error is a subclass."""
    llm = agents.chat(model=MODEL, context_length=CONTEXT_LENGTH)
    middleware: Any = SummarizationMiddleware(
        llm, trigger=("messages", 3), keep=("messages", 1), trim_tokens_to_summarize=None
    )
    turns: list[Any] = [HumanMessage("rain " * 1500), AIMessage("sun " * 1500), HumanMessage("And now?")]
    messages = create_agent(llm, [], middleware=[middleware]).invoke({"messages": turns})["messages"]
    assert "They spoke of Oslo." in str(messages[0].content)
    assert [record.stop_reason for record in agents.predictions] == ["error", "eosFound", "eosFound"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_summary_that_never_fits_is_an_error_and_leaves_the_history(is_async: bool) -> None:
    """The window is smaller than LangChain's own request for a summary."""
    turns: list[Any] = [AIMessage("sun " * 900, id="1"), AIMessage("rain " * 900, id="2"), AIMessage("fog", id="3")]
    config: Any = {"configurable": {"thread_id": "1"}}
    with Server([ModelEntry(key="tiny", context_length=512, max_context_length=512)]) as server:
        middleware: Any = SummarizationMiddleware(
            server.chat(model="tiny"), trigger=("messages", 2), keep=("messages", 1), trim_tokens_to_summarize=None
        )
        agent = create_agent(server.chat(model="tiny"), [], middleware=[middleware], checkpointer=InMemorySaver())
        run = (lambda *given: asyncio.run(agent.ainvoke(*given))) if is_async else agent.invoke
        with pytest.raises(LMStudioContextOverflowError):
            run({"messages": turns}, config)
    assert agent.get_state(config).values["messages"] == turns


@pytest.mark.parametrize(("question", "tries"), [("fail", 3), ("rain " * 3000, 1)])
def test_only_errors_that_may_pass_are_tried_again(agents: Server, question: str, tries: int) -> None:
    retry: Any = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    llm = agents.chat(model=MODEL)
    with pytest.raises(LMStudioServerError):
        create_agent(llm, [], middleware=[retry]).invoke(generate(question))
    assert len(agents.predictions) == tries


def test_a_message_that_is_retried_in_a_stream_begins_again_with_another_identifier() -> None:
    drop = [{"fault": "drop", "packet": 4}, {"text": "one two three four"}]
    rules = ({"when": {"times": 1}, "then": drop}, {"then": [{"text": "one two three four"}]})
    retry: Any = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False, on_failure="error")
    texts: dict[Any, str] = {}
    with Server([ModelEntry(key="breaks", rules=rules)]) as server:
        agent: Any = create_agent(server.chat(model="breaks", max_retries=0), [], middleware=[retry])
        for mode, part in agent.stream(generate("Hello"), stream_mode=["messages", "values"]):
            if mode == "messages":
                texts[part[0].id] = texts.get(part[0].id, "") + part[0].text
            else:
                state = part
    assert [*texts.values()] == ["one two", "one two three four"]
    assert [message.text for message in state["messages"]] == ["Hello", "one two three four"]


@tool
def unused(city: str) -> str:
    """Do nothing."""
    return city


class OfTomorrow(AgentMiddleware[Any, Any]):
    """Passes settings that this package does not know yet, as a newer LangChain may."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model_settings={**request.model_settings, "defer_loading": self.value}))


@pytest.mark.parametrize("options", [{}, {"response_format": ToolStrategy(Report)}, {"response_format": Report}])
def test_an_agent_of_a_newer_langchain_may_pass_what_is_unknown_here_and_none(agents: Server, options: Any) -> None:
    for tools in ([], [unused]):
        agent = create_agent(agents.chat(model=MODEL), tools, middleware=[OfTomorrow(None)], **options)
        assert agent.invoke({"messages": [("user", "Hello")]})["messages"]
    agent = create_agent(agents.chat(model=MODEL), [], middleware=[OfTomorrow(True)], **options)
    with pytest.raises(LMStudioValueError, match="unknown setting 'defer_loading'"):
        agent.invoke({"messages": [("user", "Hello")]})


async def test_a_count_of_the_server_may_be_waited_for_in_an_event_loop(agents: Server) -> None:
    """LangChain calls it there: other tasks wait, but nothing waits for ever."""
    edit = ClearToolUsesEdit(trigger=50, keep=0)
    middleware: Any = ContextEditingMiddleware(edits=[edit], token_count_method="model")
    call = {"name": "look_up", "args": {}, "id": "1"}
    turns: list[Any] = [
        HumanMessage("plainly"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("long " * 99, tool_call_id="1"),
    ]
    await create_agent(agents.chat(model=MODEL), [], middleware=[middleware]).ainvoke({"messages": turns})
    assert str(agents.predictions[-1].messages).count("[cleared]") == 1


async def test_old_results_are_cleared_by_an_estimate_that_follows_the_counts_of_the_server(agents: Server) -> None:
    """As the page on middleware does it: LangChain calls a counter in the event loop, so it must not ask the server."""
    turns: list[Any] = [HumanMessage("How long is the way?")]
    for mile in map(str, range(6)):
        call = {"name": "look_up", "args": {}, "id": mile}
        usage = UsageMetadata(input_tokens=900, output_tokens=1, total_tokens=901)  # more than the estimate
        provider = {"model_provider": "lmstudio"}
        turns += [
            AIMessage("", tool_calls=[call], usage_metadata=usage, response_metadata=provider),
            ToolMessage("It is a long, long way. " * 10, tool_call_id=mile),
        ]
    edit = ClearToolUsesEdit(trigger=round(1.1 * count_tokens_approximately(turns)))
    counter = partial(count_tokens_approximately, use_usage_metadata_scaling=True)
    middleware: Any = ContextEditingMiddleware(edits=[edit], token_counter=counter)
    llm = agents.chat(model=MODEL)
    await create_agent(llm, [], middleware=[middleware]).ainvoke({"messages": turns})
    assert str(agents.predictions[-1].messages).count("[cleared]") == 3
    assert llm.invoke("plainly").response_metadata["model_provider"] == "lmstudio"
