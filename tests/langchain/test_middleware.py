"""The middlewares for agents: repeated tool calls and invalid ones, on a scripted server, sync and async."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import middleware as package
from lmstudio_integrations.langchain.middleware import InvalidToolCallMiddleware, RepeatedToolCallMiddleware
from tests.langchain.agents import WAYS, Run, Script, assert_is_valid, run, script

__all__ = ["run", "script"]

invoke = WAYS["invoke"]


class Tools:
    """Tools that remember their calls.

    Attributes:
        ran: The calls, as `name(value)`.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []

    def tool(self, name: str, result: Callable[[int], str] = lambda _: "same", **settings: Any) -> StructuredTool:
        """Return a tool whose result may depend on the number of the call."""

        def function(value: str = "") -> str:
            self.ran.append(f"{name}({value})")
            return result(len(self.ran))

        return StructuredTool.from_function(function, name=name, description="A tool.", **settings)


@pytest.fixture
def tools() -> Tools:
    """Tools without a call."""
    return Tools()


def look(**arguments: Any) -> list[dict[str, Any]]:
    """Return a turn that calls a tool."""
    return [{"tool": "look", "arguments": arguments}]


LEAD = "did not run: this is call number"
"""What the answers to repeated calls have in common."""


def kinds(messages: Sequence[BaseMessage]) -> str:
    """Return the types of messages; `answer` is a result of the middleware."""
    return " ".join("answer" if LEAD in message.text else message.type for message in messages)


# Repeated calls -------------------------------------------------------------------------------------------------------


def test_a_call_that_repeats_is_answered_and_then_ends_the_run(
    run: Run, script: Script, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    server = script(look(value="a"), finally_=look(value="a"))
    agent: Any = create_agent(
        server.chat(model="scripted"), [tools.tool("look")], middleware=[RepeatedToolCallMiddleware()]
    )
    messages = run(agent)
    assert kinds(messages) == "human" + " ai tool" * 2 + " ai answer" * 4 + " ai"
    assert tools.ran == ["look(a)"] * 2
    assert messages[-1].text == "Stopped: `look` was called 6 times with the same arguments and result."
    assert messages[-1].response_metadata == {
        "stop_reason": "repeated_tool_call",
        "repeated_tool_call": {"name": "look", "arguments": {"value": "a"}, "count": 6},
    }
    assert f"`look` {LEAD} 3 with the same arguments" in caplog.text
    assert messages[-1].text in caplog.text
    assert_is_valid(messages)
    assert f"Error: `look` {LEAD} 5" in str(server.predictions[-1].messages), "the model reads it"


MANY: dict[str, Any] = {"value": "a"}


@pytest.mark.parametrize(
    ("turns", "settings", "result", "ran"),
    [
        ([look(**MANY)] * 6, {"most": 2}, "same", 1),
        ([look(**MANY)] * 6, {"most": 6}, "same", 5),
        ([look(**MANY)] * 6, {}, "{}", 6),
        ([look(value=str(at)) for at in range(6)], {}, "same", 6),
        ([look(**MANY)] * 6, {"repeatable": ["look"]}, "same", 6),
        ([look(**MANY)] * 6, {"tags": ["repeatable"]}, "same", 6),
        ([look(**MANY)] * 6, {"metadata": {"repeatable": True}}, "same", 6),
        ([look(**MANY)] * 6, {"metadata": {"repeatable": False}}, "same", 2),
        ([look(**MANY) * 6], {}, "same", 2),
        ([look(**MANY) * 2, look(**MANY) * 2], {}, "same", 2),
    ],
    ids=["2", "6", "results", "arguments", "named", "tagged", "metadata", "metadata false", "parallel", "pairs"],
)
def test_how_often_a_tool_runs(
    script: Script, tools: Tools, turns: Any, settings: dict[str, Any], result: str, ran: int
) -> None:
    own = {name: settings.pop(name) for name in ("tags", "metadata") if name in (settings := dict(settings))}
    server = script(*turns, finally_=[{"text": "Done."}])
    tool = tools.tool("look", result.format, **own)
    agent: Any = create_agent(
        server.chat(model="scripted"), [tool], middleware=[RepeatedToolCallMiddleware(**settings)]
    )
    messages = invoke(agent)
    assert len(tools.ran) == ran
    assert_is_valid(messages)


def test_what_is_new_in_a_message_runs_and_keeps_the_run_going(script: Script, tools: Tools) -> None:
    turns = [*[look()] * 5, [*look(), {"tool": "other"}]]
    server = script(*turns, finally_=[{"text": "Done."}])
    elsewhere = {"type": "function", "function": {"name": "elsewhere", "description": "Runs elsewhere."}}
    both: Any = [tools.tool("look"), tools.tool("other"), elsewhere]
    agent: Any = create_agent(server.chat(model="scripted"), both, middleware=[RepeatedToolCallMiddleware()])
    messages = invoke(agent)
    assert tools.ran == ["look()", "look()", "other()"]
    assert messages[-1].text == "Done."
    assert_is_valid(messages)


def test_each_turn_of_the_user_begins_anew_in_every_thread(script: Script, tools: Tools) -> None:
    server = script(*[look()] * 2, finally_=[{"text": "Done."}])
    agent: Any = create_agent(
        server.chat(model="scripted"),
        [tools.tool("look")],
        middleware=[RepeatedToolCallMiddleware()],
        checkpointer=InMemorySaver(),
    )
    for thread in "aabb":
        messages = invoke(agent, config={"configurable": {"thread_id": thread}})
        assert messages[-1].text == "Done."
    assert len(tools.ran) == 8


def decide(decision: str, request: Any) -> dict[str, Any]:
    """Return what a person says to the request for a call."""
    if decision == "edit":
        return {"type": "edit", "edited_action": {"name": request["name"], "args": {"value": "edited"}}}
    return {"type": decision}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize(
    ("decision", "ran"),
    [
        ("approve", ["look(a)"] * 3 + ["other()"]),
        ("reject", []),
        ("edit", ["look(edited)"] * 3 + ["other(edited)"]),
    ],
)
@pytest.mark.parametrize("turns", [[look(value="a")] * 4, [look(value="a") * 2]], ids=["one", "two"])
def test_a_person_is_asked_only_about_calls_that_run(
    script: Script, tools: Tools, way: str, is_first: bool, mode: Any, decision: str, ran: list[str], turns: Any
) -> None:
    server = script(*turns, [*look(value="a"), {"tool": "other"}], finally_=look(value="a"))
    both: list[Any] = [RepeatedToolCallMiddleware()]
    asks = HumanInTheLoopMiddleware({"look": True, "other": True}, interrupt_mode=mode)
    both.insert(0 if is_first else 1, asks)
    agent: Any = create_agent(
        server.chat(model="scripted"),
        [tools.tool("look"), tools.tool("other")],
        middleware=both,
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    asked, state = list[str](), dict[str, Any]()
    command: Any = {"messages": [HumanMessage("Hello!")]}
    for _ in range(10):
        state = agent.invoke(command, config) if way == "invoke" else asyncio.run(agent.ainvoke(command, config))
        interrupts = state.get("__interrupt__", ())
        if not interrupts:
            break
        requests = {each.id: each.value.get("action_requests", [each.value]) for each in interrupts}
        asked += [request["name"] for each in requests.values() for request in each]
        decisions = {id_: [decide(decision, request) for request in each] for id_, each in requests.items()}
        resume = {id_: {"decisions": each} if mode == "batched" else each[0] for id_, each in decisions.items()}
        command = Command(resume=resume)
    assert sorted(asked) == ["look"] * 3 + ["other"], "after something new, a call may be made again"
    assert sorted(tools.ran) == ran
    assert state["messages"][-1].response_metadata["stop_reason"] == "repeated_tool_call"
    assert_is_valid(state["messages"])


@pytest.mark.parametrize("is_first", [True, False])
def test_calls_repeat_also_in_a_conversation_that_is_summarized(
    run: Run, script: Script, tools: Tools, is_first: bool
) -> None:
    server = script(finally_=look(value="a"))
    summarizer = GenericFakeChatModel(messages=iter([AIMessage("The user greets.")] * 80))
    both: list[Any] = [RepeatedToolCallMiddleware()]
    both.insert(
        0 if is_first else 1, SummarizationMiddleware(summarizer, trigger=("messages", 6), keep=("messages", 2))
    )
    agent: Any = create_agent(server.chat(model="scripted"), [tools.tool("look")], middleware=both)
    messages = run(agent)
    assert messages[-1].text == "Stopped: `look` was called 6 times with the same arguments and result."
    assert len(tools.ran) == 2
    assert_is_valid(messages)


class Report(BaseModel):
    """A report."""

    degrees: int


def test_a_structured_response_that_never_fits_ends_the_run(script: Script) -> None:
    """`ToolStrategy` answers the call itself, and calls the model again, without an end."""
    server = script(finally_=[{"tool": "Report", "arguments": {"degrees": "cold"}}])
    agent: Any = create_agent(
        server.chat(model="scripted"), middleware=[RepeatedToolCallMiddleware()], response_format=ToolStrategy(Report)
    )
    messages = invoke(agent)
    assert messages[-1].response_metadata["repeated_tool_call"]["count"] == 6
    assert_is_valid(messages)


# Invalid calls --------------------------------------------------------------------------------------------------------

BROKEN = [{"text": "I look."}, {"tool": "look", "malformed": '{"value": "a'}]


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_the_model_makes_an_invalid_call_again(run: Run, script: Script, tools: Tools, output_version: str) -> None:
    server = script(BROKEN, look(value="a"), finally_=[{"text": "Done."}])
    model = server.chat(model="scripted", output_version=output_version, repair_tool_calls=False)
    agent: Any = create_agent(model, [tools.tool("look")], middleware=[InvalidToolCallMiddleware()])
    messages = run(agent)
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai", "tool", "ai"]
    assert tools.ran == ["look(a)"]
    assert messages[-1].text == "Done."
    assert_is_valid(messages)
    _, call, result = server.predictions[1].messages
    assert "I look." in str(call)
    assert '{"value": "a' not in str(call)
    assert "Error: the call could not be read, and did not run: " in str(result)


@pytest.mark.parametrize(
    ("turns", "most", "calls"),
    [
        ([BROKEN] * 4, 1, 2),
        ([BROKEN] * 4, 2, 3),
        ([BROKEN, look(), BROKEN, look()], 1, 3),
        ([BROKEN, look(), BROKEN, look()], 2, 5),
        ([[*BROKEN, *look()]], 1, 2),
    ],
    ids=["once", "twice", "counted in the turn", "enough", "beside a valid call"],
)
def test_how_often_the_model_is_asked_again(script: Script, tools: Tools, turns: Any, most: int, calls: int) -> None:
    server = script(*turns, finally_=[{"text": "Done."}])
    agent: Any = create_agent(
        server.chat(model="scripted", repair_tool_calls=False),
        [tools.tool("look")],
        middleware=[InvalidToolCallMiddleware(most=most)],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "a"}}
    messages = invoke(agent, config=config)
    assert len(server.predictions) == calls
    assert_is_valid(messages)
    is_done = messages[-1].text == "Done."
    assert isinstance(messages[-1], AIMessage)
    assert bool(messages[-1].invalid_tool_calls) is not is_done
    assert_is_valid(invoke(agent, config=config))
    assert len(server.predictions) == 2 * calls, "the next turn of the user begins anew"


def test_a_full_context_window_is_not_asked_again(script: Script, tools: Tools) -> None:
    server = script(finally_=look(value="rain " * 2000), context_length=1000)
    agent: Any = create_agent(
        server.chat(model="scripted", repair_tool_calls=False),
        [tools.tool("look")],
        middleware=[InvalidToolCallMiddleware()],
    )
    messages = invoke(agent)
    assert messages[-1].response_metadata["stop_reason"] == "contextLengthReached"
    assert kinds(messages) == "human ai"


def test_a_call_without_an_identifier_is_asked_for_again() -> None:
    """Models of other packages may send none; the model then reads its own message."""
    broken = AIMessage("", invalid_tool_calls=[{"name": "look", "args": "{", "id": None, "error": None}])
    model = GenericFakeChatModel(messages=iter([broken, AIMessage("Done.")]))
    agent: Any = create_agent(model, middleware=[InvalidToolCallMiddleware()])
    assert [message.type for message in invoke(agent)] == ["human", "ai", "ai"]


@pytest.mark.parametrize(
    ("middleware", "call", "source"),
    [
        (RepeatedToolCallMiddleware(most=2), look(), "repeated_tool_call"),
        (InvalidToolCallMiddleware(), BROKEN, "invalid_tool_call"),
    ],
)
def test_a_result_that_no_tool_made_names_its_source_as_core_does_and_not_to_the_model(
    script: Script, tools: Tools, middleware: Any, call: Any, source: str
) -> None:
    server = script(look(), call, finally_=[{"text": "Done."}])
    model = server.chat(model="scripted", repair_tool_calls=False)
    messages = invoke(create_agent(model, [tools.tool("look")], middleware=[middleware]))
    ran, made = (message for message in messages if isinstance(message, ToolMessage))
    assert (ran.additional_kwargs, made.additional_kwargs) == ({}, {"lc_source": source})
    assert source not in str(server.predictions[-1].messages)


# The package ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: RepeatedToolCallMiddleware(most=1),
        lambda: RepeatedToolCallMiddleware(most=True),
        lambda: RepeatedToolCallMiddleware(repeatable=[1]),  # type: ignore[list-item]
        lambda: InvalidToolCallMiddleware(most=0),
    ],
)
def test_an_argument_that_cannot_be_used_is_an_error_that_names_it(make: Callable[[], object]) -> None:
    with pytest.raises(LMStudioValueError, match=r"^(most|repeatable) must be"):
        make()


@pytest.mark.parametrize("name", dir(package))
@pytest.mark.slow
def test_without_langchain_one_sentence_names_the_installation(name: str) -> None:
    script = f"import sys; sys.modules['langchain'] = None; from {package.__name__} import {name}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {name} needs langchain; run: ")
    assert last.endswith("pip install langchain")
