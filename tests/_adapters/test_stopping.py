"""Who stops reading an agent, in each way: whether its model stops by itself, and that it does with `cancel_on_close`.

`docs/guides/stopping.md` has the table of `WAYS` and `CALLS`.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import AGENT_WARNINGS
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.signals import ctrl_c

pytestmark = [
    pytest.mark.leaf,
    AGENT_WARNINGS,
    pytest.mark.filterwarnings("ignore:The v3 streaming protocol"),
    # A chat engine has a thread that writes to its memory, and fails.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "stopping.md"
RULE: dict[str, Any] = {"when": {}, "then": [{"text": "one two "}, AT_THE_GATE, {"text": "three"}]}
MODEL = ModelEntry(key="chatty", rules=(RULE,), preload=True, tools=True)
QUESTION: Any = {"messages": [("user", "Hi")]}

Outcome = Literal["stops", "writes on", "writes on, and your program waits"]
Wrap = Callable[[Any], Any]


class Case:
    """An agent whose model is held up after its first words.

    Args:
        server: Where the model is.
        gate: Holds it up.
        wrap: Applied to what is read: nothing, or `cancel_on_close`.
        opens: Whether the gate opens when the reader stops, because the model writes on.
    """

    def __init__(self, server: Emulator, gate: Gate, wrap: Wrap, *, opens: bool) -> None:
        self.server = server
        self.gate = gate
        self.wrap = wrap
        self.stops: Callable[[], object] = gate.open if opens else lambda: None
        """Called just before the reader stops."""

    def chat(self) -> ChatLMStudio:
        return ChatLMStudio(model="chatty", host=self.server.address)

    def langgraph(self) -> Any:
        return create_agent(self.chat(), [weather])

    def llm(self) -> LMStudio:
        return LMStudio(model="chatty", host=self.server.address).load()

    def agent(self) -> FunctionAgent:
        return FunctionAgent(tools=[weather], llm=self.llm())

    def engine(self) -> SimpleChatEngine:
        return SimpleChatEngine.from_defaults(llm=self.llm(), memory=_memory())

    async def read(self, stream: AsyncIterable[Any], stop: Callable[[], object]) -> None:
        async for item in stream:
            if _is_last(item):
                stop()


def _is_last(item: object) -> bool:
    """Whether an item has the words before the gate."""
    return "two" in str(item)


def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"Rain in {city}."


def _graph_stream(case: Case) -> Any:
    return case.wrap(case.langgraph().stream(QUESTION, stream_mode="messages"))


def _graph_astream(case: Case) -> Any:
    return case.wrap(case.langgraph().astream(QUESTION, stream_mode="messages"))


def _graph_v2(case: Case) -> Any:
    return case.wrap(case.langgraph().astream_events(QUESTION, version="v2"))


def _graph_v3(case: Case) -> Any:
    return case.wrap(case.langgraph().stream_events(QUESTION, version="v3"))


async def _graph_async_v3(case: Case) -> Any:
    return case.wrap(await case.langgraph().astream_events(QUESTION, version="v3"))


async def _workflow(case: Case) -> Any:
    agent = case.agent()
    if case.wrap is _itself:
        return agent.run("Hi", memory=_memory()).stream_events()
    return case.wrap(lambda: agent.run("Hi", memory=_memory()))


async def _begun_workflow(case: Case) -> Any:
    return case.wrap(case.agent().run("Hi", memory=_memory()))


def _memory() -> ChatMemoryBuffer:
    """Return a memory; by default it would be a database, which nothing closes."""
    return ChatMemoryBuffer.from_defaults(token_limit=1000)


def _chat_engine(case: Case) -> Any:
    engine = case.engine()
    return case.wrap(lambda: engine.stream_chat("Hi").response_gen)


def _async_chat_engine(case: Case) -> Any:
    engine = case.engine()

    async def texts() -> AsyncIterator[str]:
        response = await engine.astream_chat("Hi")
        async for text in response.async_response_gen():
            yield text

    return case.wrap(texts)


def _break(make: Callable[[Case], Any]) -> Callable[[Case], None]:
    def leave(case: Case) -> None:
        for item in make(case):
            if _is_last(item):
                case.stops()
                break

    return leave


def _interrupt(case: Case) -> None:
    """Press Ctrl-C while the reader waits for the next item."""
    has_read = threading.Event()

    def read() -> None:
        for item in _graph_stream(case):
            if _is_last(item):
                has_read.set()

    def stop(has_arrived: threading.Event) -> None:
        has_arrived.wait()
        case.stops()

    with ctrl_c(has_read.wait) as has_arrived:
        stopper = threading.Thread(target=stop, args=[has_arrived])
        stopper.start()
        with pytest.raises(KeyboardInterrupt):
            read()
    stopper.join()


async def _made(stream: Any) -> Any:
    return await stream if isinstance(stream, Awaitable) else stream


def _break_async(make: Callable[[Case], Any]) -> Callable[[Case], Awaitable[None]]:
    async def leave(case: Case) -> None:
        async for item in await _made(make(case)):
            if _is_last(item):
                case.stops()
                break

    return leave


def _cancel_task(make: Callable[[Case], Any]) -> Callable[[Case], Awaitable[None]]:
    async def leave(case: Case) -> None:
        has_read = asyncio.Event()
        task = asyncio.create_task(case.read(await _made(make(case)), has_read.set))
        await has_read.wait()
        case.stops()
        task.cancel()
        await asyncio.wait([task])

    return leave


def _disconnect(make: Callable[[Case], Any]) -> Callable[[Case], Awaitable[None]]:
    """Cancel as web frameworks do when their client is gone."""

    async def leave(case: Case) -> None:
        async with anyio.create_task_group() as group:
            has_read = asyncio.Event()
            group.start_soon(case.read, await _made(make(case)), has_read.set)
            await has_read.wait()
            case.stops()
            group.cancel_scope.cancel()

    return leave


def _cancel_call(call: Callable[[Case], Awaitable[object]]) -> Callable[[Case], Awaitable[None]]:
    """Cancel the task of a call, which has no stream."""

    async def leave(case: Case) -> None:
        task = asyncio.ensure_future(call(case))
        await asyncio.to_thread(case.gate.reached.wait)
        case.stops()
        task.cancel()
        await asyncio.wait([task])

    return leave


async def _await_graph(case: Case) -> None:
    await case.langgraph().ainvoke(QUESTION)


async def _await_workflow(case: Case) -> None:
    await case.agent().run("Hi", memory=_memory())


@dataclass(frozen=True)
class Way:
    """A way to stop reading.

    Attributes:
        stream: What is read, as on the page.
        stop: How the reader stops, as on the page.
        leave: Reads until the gate, and stops.
        outcome: What the model does without `cancel_on_close`.
    """

    stream: str
    stop: str
    leave: Callable[[Case], Any]
    outcome: Outcome


_WAITS: Outcome = "writes on, and your program waits"
_V2, _V3 = (f'LangGraph `astream_events(version="{version}")`' for version in ("v2", "v3"))
_RUN = "LlamaIndex `run().stream_events()`"
_ENGINE, _ASYNC_ENGINE = (f"LlamaIndex chat engine, `{name}`" for name in ("stream_chat", "astream_chat"))
_BREAK, _TASK, _CLIENT = "`break`, an error", "the task is cancelled", "a web client disconnects"
WAYS = [
    Way("LangGraph `stream`", _BREAK, _break(_graph_stream), _WAITS),
    Way("LangGraph `stream`", "Ctrl-C", _interrupt, _WAITS),
    Way('LangGraph `stream_events(version="v3")`', _BREAK, _break(_graph_v3), "writes on"),
    Way("LangGraph `astream`", _BREAK, _break_async(_graph_astream), "stops"),
    Way("LangGraph `astream`", _TASK, _cancel_task(_graph_astream), "stops"),
    Way("LangGraph `astream`", _CLIENT, _disconnect(_graph_astream), "writes on"),
    Way(_V2, _BREAK, _break_async(_graph_v2), "stops"),
    Way(_V2, _CLIENT, _disconnect(_graph_v2), "stops"),
    Way(_V3, _BREAK, _break_async(_graph_async_v3), "writes on"),
    Way(_V3, _CLIENT, _disconnect(_graph_async_v3), "writes on"),
    Way(_RUN, _BREAK, _break_async(_workflow), "writes on"),
    Way(_RUN, _TASK, _cancel_task(_workflow), "writes on"),
    Way(_RUN, _CLIENT, _disconnect(_workflow), "writes on"),
    Way(_ENGINE, _BREAK, _break(_chat_engine), _WAITS),
    Way(_ASYNC_ENGINE, _BREAK, _break_async(_async_chat_engine), "writes on"),
    Way(_ASYNC_ENGINE, _CLIENT, _disconnect(_async_chat_engine), "stops"),
]
CALLS = [
    Way("LangGraph `ainvoke`", _TASK, _cancel_call(_await_graph), "stops"),
    Way("LlamaIndex `await run()`", _TASK, _cancel_call(_await_workflow), "writes on"),
]
"""Without a stream."""
NAMES: Any = {"ids": lambda way: f"{way.stream}, {way.stop}"}
LINES = {
    "LangGraph `stream`": "`lms.cancel_on_close(agent.stream(…))`",
    "LangGraph `astream`": "`lms.cancel_on_close(agent.astream(…))`",
    'LangGraph `stream_events(version="v3")`': "`lms.cancel_on_close(agent.stream_events(…))`",
    _V3: "`lms.cancel_on_close(await agent.astream_events(…))`",
    _ENGINE: "`lms.cancel_on_close(lambda: engine.stream_chat(…).response_gen)`",
    _ASYNC_ENGINE: "`lms.cancel_on_close(…)` of an async generator that calls it",
    **dict.fromkeys((_RUN, CALLS[-1].stream), "`lms.cancel_on_close(lambda: agent.run(…))`"),
}
"""What to write where a model writes on, by the stream."""


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server whose model is held up."""
    with Emulator([MODEL], engines=gate.engines()) as running:
        yield running


def _leave(way: Way, case: Case) -> str | None:
    """Read, stop in this way, and return why the prediction ended."""

    def reason() -> str | None:
        case.server.wait_for(lambda: case.server.predictions[-1].state == "ended")
        return case.server.predictions[-1].stop_reason

    async def leave() -> str | None:
        await way.leave(case)
        return await asyncio.to_thread(reason)

    if inspect.iscoroutinefunction(way.leave):
        return asyncio.run(leave())
    way.leave(case)
    return reason()


def _itself(stream: Any) -> Any:
    return stream() if callable(stream) else stream


@pytest.mark.parametrize("way", WAYS, **NAMES)
def test_a_model_stops_if_its_stream_is_cancelled_on_close(way: Way, server: Emulator, gate: Gate) -> None:
    assert _leave(way, Case(server, gate, lms.cancel_on_close, opens=False)) == "userStopped"


def test_a_run_that_has_begun_is_stopped_with_its_model(server: Emulator, gate: Gate) -> None:
    way = Way(_RUN, _BREAK, _break_async(_begun_workflow), "writes on")
    assert _leave(way, Case(server, gate, lms.cancel_on_close, opens=False)) == "userStopped"


@pytest.mark.parametrize("way", [*WAYS, *CALLS], **NAMES)
def test_the_page_says_what_a_model_does_by_itself(way: Way, server: Emulator, gate: Gate) -> None:
    stops = way.outcome == "stops"
    assert _leave(way, Case(server, gate, _itself, opens=not stops)) == ("userStopped" if stops else "eosFound")


class ToolCase(Case):
    """An agent whose sync tool asks the model that is held up."""

    def ask(self) -> str:
        """Ask another model."""
        with lms.Client(self.server.address) as client:
            return client.llm.model("chatty").respond("Hi").content

    def langgraph(self) -> Any:
        return create_agent(ChatLMStudio(model="caller", host=self.server.address), [tool(self.ask)])

    def agent(self) -> FunctionAgent:
        return FunctionAgent(tools=[self.ask], llm=LMStudio(model="caller", host=self.server.address).load())


async def _break_in_tool(make: Callable[[Case], Any], case: Case) -> None:
    stream = await _made(make(case))
    is_held = asyncio.create_task(asyncio.to_thread(case.gate.reached.wait))
    async with stream:
        reading = asyncio.create_task(case.read(stream, lambda: None))
        await is_held
    with pytest.raises(lms.LMStudioCancelledError):
        await reading


@pytest.mark.parametrize("make", [_graph_astream, _workflow])
async def test_a_model_that_a_sync_tool_asks_stops_with_its_agent(make: Callable[[Case], Any], gate: Gate) -> None:
    call: dict[str, Any] = {"when": {"role": "user"}, "then": [{"tool": "ask", "arguments": {}}]}
    caller = ModelEntry(key="caller", rules=(call,), preload=True, tools=True)
    with Emulator([MODEL, caller], engines=gate.engines()) as server:
        await _break_in_tool(make, ToolCase(server, gate, lms.cancel_on_close, opens=False))
        await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].state == "ended")
        assert [(each.model, each.stop_reason) for each in server.predictions][1:] == [("chatty", "userStopped")]


def _model_stream(case: Case) -> Any:
    return case.chat().astream("Hi")


def _llm_stream(case: Case) -> Any:
    return case.llm().astream_chat([ChatMessage("Hi")])


@pytest.mark.parametrize("make", [_model_stream, _llm_stream])
async def test_another_task_may_close_a_stream_that_is_read(
    make: Callable[[Case], Any], server: Emulator, gate: Gate
) -> None:
    """Python itself lets nobody close an async generator that somebody reads."""
    case = Case(server, gate, _itself, opens=False)
    stream = lms.cancel_on_close(await _made(make(case)))
    has_begun = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            has_begun.set()

    task = asyncio.create_task(read())
    await has_begun.wait()
    await stream.aclose()
    with pytest.raises(lms.LMStudioCancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[-1].stop_reason == "userStopped")
    gate.open()
    assert (await case.chat().ainvoke("Hi")).text == "one two three"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "wrap"),
    [(_graph_astream, _itself), (_graph_astream, lms.cancel_on_close), (_workflow, lms.cancel_on_close)],
)
async def test_the_timeouts_of_twenty_agents_cancel_each_prediction_and_every_task_ends(
    make: Callable[[Case], Any], wrap: Wrap, server: Emulator, gate: Gate
) -> None:
    """Four are held up in their slots, and sixteen wait for one."""
    case, timeouts, loop = Case(server, gate, wrap, opens=False), list[asyncio.Timeout](), asyncio.get_running_loop()
    unhandled: list[Any] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))

    async def run() -> None:
        async with asyncio.timeout(None) as timeout:
            timeouts.append(timeout)
            async for _ in await _made(make(case)):
                pass

    runs = [asyncio.create_task(run()) for _ in range(20)]
    await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == len(runs))
    for timeout in timeouts:
        timeout.reschedule(loop.time())
    errors = await asyncio.gather(*runs, return_exceptions=True)
    await asyncio.to_thread(server.wait_for, lambda: all(each.state == "ended" for each in server.predictions))
    assert [type(error) for error in errors] == [TimeoutError] * len(runs)
    assert {each.stop_reason for each in server.predictions} == {"userStopped"}
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)  # those of the frameworks that are about to end
    assert unhandled == []


def test_the_page_has_the_table() -> None:
    stops: dict[tuple[str, Outcome], list[str]] = {}
    for way in [*WAYS, *CALLS]:
        stops.setdefault((way.stream, way.outcome), []).append(way.stop)
    rows = [
        f"| {stream} | {'; '.join(ways)} | {outcome} | {'' if outcome == 'stops' else LINES[stream]} |"
        for (stream, outcome), ways in stops.items()
    ]
    assert "\n".join(rows).replace("|  |", "| |") in PAGE.read_text(encoding="utf-8")
