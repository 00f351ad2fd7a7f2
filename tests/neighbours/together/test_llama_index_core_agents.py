"""Agents call tools, hand over to each other, write code, and stop where they are told to."""

from pathlib import Path

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="`FunctionAgent`, `ReActAgent`, `CodeActAgent`, and an `AgentWorkflow` with a handoff",
    settings='`ReActAgent`: `stop=["Observation:"]`, so that a model does not make up the result of a tool. '
    "`memory=` of `run` keeps a conversation; the `ctx` of a run does not, in these versions",
)


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Ferries to the {destination} leave from pier 7."


async def test_a_function_agent_calls_a_tool(serve: Serve) -> None:
    from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult

    from lmstudio_integrations.llama_index import LMStudio

    server = serve(
        {"when": {"role": "tool"}, "then": "From pier 7."},
        {"then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    )
    agent = FunctionAgent(tools=[pier], llm=LMStudio(model=CHAT).load(), system_prompt="Be brief.")
    running = agent.run("From which pier?")
    events = [event async for event in running.stream_events()]
    assert str(await running) == "From pier 7."
    (result,) = [each for each in events if isinstance(each, ToolCallResult)]
    assert result.tool_output.content == "Ferries to the island leave from pier 7."
    assert "".join(each.delta for each in events if isinstance(each, AgentStream)) == "From pier 7."
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["pier"]
    assert [each["role"] for each in told.messages] == ["system", "user", "assistant", "tool"]


async def test_a_react_agent_stops_at_the_observation(serve: Serve) -> None:
    from llama_index.core.agent.workflow import ReActAgent

    from lmstudio_integrations.llama_index import LMStudio

    step = 'Thought: I look it up.\nAction: pier\nAction Input: {"destination": "island"}\nObservation: pier 1'
    server = serve(
        {
            "when": {"last": "Observation: Ferries to the island"},
            "then": "Thought: I can answer without using any more tools.\nAnswer: From pier 7.",
        },
        {"then": step},
    )
    llm = LMStudio(model=CHAT, stop=["Observation:"]).load()
    response = await ReActAgent(tools=[pier], llm=llm).run("From which pier?")
    assert str(response) == "From pier 7."
    asked, told = server.predictions
    assert asked.tools == [], "the tools are in the prompt"
    assert "Tool Name: pier" in str(asked.messages)
    assert asked.config["stopStrings"] == ["Observation:"]
    assert asked.stop_reason == "stopStringFound"
    assert "pier 1" not in asked.text + str(told.messages)


async def test_a_codeact_agent_writes_code(serve: Serve) -> None:
    from llama_index.core.agent.workflow import CodeActAgent

    from lmstudio_integrations.llama_index import LMStudio

    run = []

    def execute(code: str) -> str:
        run.append(code)
        return "42"

    server = serve(
        {"when": {"last": "42"}, "then": "It is 42."},
        {"then": "I calculate.\n<execute>\nprint(6 * 7)\n</execute>"},
    )
    agent = CodeActAgent(code_execute_fn=execute, llm=LMStudio(model=CHAT).load(), tools=[pier])
    assert str(await agent.run("What is 6 * 7?")) == "It is 42."
    assert [code.strip() for code in run] == ["print(6 * 7)"]
    asked, told = server.predictions
    assert asked.messages[0]["role"] == "system"
    assert "def pier(destination: str)" in str(asked.messages[0])
    assert told.messages[-1]["role"] == "user"


async def test_an_agent_hands_over(serve: Serve) -> None:
    from llama_index.core.agent.workflow import AgentOutput, AgentWorkflow, FunctionAgent

    from lmstudio_integrations.llama_index import LMStudio

    handoff = {"to_agent": "harbour", "reason": "ferries"}
    server = serve(
        {"when": {"last": "leave from pier 7"}, "then": "From pier 7."},
        {
            "when": {"last": "now handling the request", "role": "tool"},
            "then": [{"tool": "pier", "arguments": {"destination": "island"}}],
        },
        {"when": {"tools": ["handoff"]}, "then": [{"tool": "handoff", "arguments": handoff}]},
        {"when": {"tools": ["pier"]}, "then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    )
    llm = LMStudio(model=CHAT).load()
    desk = FunctionAgent(
        name="desk", description="answers calls", llm=llm, can_handoff_to=["harbour"], system_prompt="You hand over."
    )
    harbour = FunctionAgent(
        name="harbour", description="knows ferries", llm=llm, tools=[pier], can_handoff_to=[], system_prompt="Be brief."
    )
    workflow = AgentWorkflow(agents=[desk, harbour], root_agent="desk")
    running = workflow.run(user_msg="From which pier?")
    agents = [event.current_agent_name async for event in running.stream_events() if isinstance(event, AgentOutput)]
    assert str(await running) == "From pier 7."
    assert agents == ["desk", "harbour", "harbour"]
    offered = [[tool["function"]["name"] for tool in each.tools] for each in server.predictions]
    assert offered == [["handoff"], ["pier"], ["pier"]]
    assert [each.messages[0]["role"] for each in server.predictions] == ["system"] * 3


async def test_an_agent_fills_a_class_and_is_continued(serve: Serve, tmp_path: Path) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.memory import Memory
    from pydantic import BaseModel

    from lmstudio_integrations.llama_index import LMStudio

    class Departure(BaseModel):
        """A departure."""

        pier: int

    server = serve(
        {"when": {"structured": True}, "then": '{"pier": 7}'},
        {"when": {"role": "tool"}, "then": "From pier 7."},
        {"when": {"last": "And who"}, "then": "You are Anna."},
        {"then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    )
    database = f"sqlite+aiosqlite:///{tmp_path / 'memory.sqlite'}"
    agent = FunctionAgent(tools=[pier], llm=LMStudio(model=CHAT).load(), output_cls=Departure)
    memory = Memory.from_defaults(session_id="anna", async_database_uri=database)
    response = await agent.run("I am Anna. From which pier?", memory=memory)
    assert response.get_pydantic_model(Departure) == Departure(pier=7)
    assert [each.config.get("structured", {}).get("type") for each in server.predictions] == [None, None, "json"]
    later = Memory.from_defaults(session_id="anna", async_database_uri=database)
    continued = await FunctionAgent(tools=[pier], llm=LMStudio(model=CHAT)).run("And who am I?", memory=later)
    assert str(continued) == "You are Anna."
    roles = [each["role"] for each in server.predictions[-1].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
