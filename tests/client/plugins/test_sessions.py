"""The tools of plugins."""

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.plugins.sessions import PluginSession, RemoteTool, ToolCallbacks, spec_of
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.functions import Tool
from tests.client.fake import Socket, authenticate, fake_server, receive, send, wait_until
from tests.support.gate import Gate
from tests.support.threads import together

SECONDS = 600.0
FAILED = {"content": [{"type": "text", "text": "no such city"}], "isError": True}
CONTENT = [{"type": "text", "text": "a chart"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}]


class Plugin:
    """The functions of a plugin, and what they wait for."""

    def __init__(self) -> None:
        self.gate = Gate()

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def fail(self) -> None:
        """Fail."""
        raise ValueError("no api token is loaded")

    async def wait(self, context: lms.ToolCallContext) -> str:
        """Wait until the test lets it go on."""
        context.status("waiting")
        context.warn("for long")
        await self.gate.wait()
        return "opened"

    def echo(self, value: Any) -> Any:
        """Return a value."""
        return value

    @property
    def functions(self) -> Sequence[Callable[..., Any]]:
        return self.add, self.fail, self.wait, self.echo


@pytest.fixture
def sums() -> Plugin:
    return Plugin()


@pytest.fixture
def server(sums: Plugin) -> Iterator[Emulator]:
    rules = [
        {"when": {"last": "^add"}, "then": [{"tool": "add", "arguments": {"a": 1, "b": 2}}]},
        {"when": {"last": "^chart"}, "then": [{"tool": "echo", "arguments": {"value": CONTENT}}]},
        {"when": {"role": "tool"}, "then": [{"text": "It says {last}"}]},
    ]
    plugins = {"mcp/sums": sums.functions, "mcp/more": (sums.add,)}
    with Emulator([{"key": "m", "rules": rules}], plugins=plugins) as running:
        yield running


@pytest.fixture
async def session(client: Any) -> AsyncIterator[Any]:
    async with client.plugins.tools("mcp/sums") as opened:
        yield opened


def named(session: Any, name: str) -> Any:
    return next(tool for tool in session.tools if tool.name == name)


def states(server: Emulator) -> list[str]:
    return [call.state for call in server.tool_calls]


@contextlib.contextmanager
def no_session_left(server: Emulator) -> Iterator[None]:
    """Check that the server has closed every session by the end of the block."""
    yield
    server.wait_for(lambda: not server.running_plugins, SECONDS)


async def test_tools_are_listed_and_called(session: Any) -> None:
    tool = named(session, "add")
    assert (tool.description, tool.plugin) == ("Add two numbers.", "mcp/sums")
    assert sorted(tool.parameters["properties"]) == ["a", "b"]
    assert await tool.call({"a": 1, "b": 2}) == 3


@pytest.mark.parametrize("value", [None, {"a": ["é🙂", None]}, CONTENT])
async def test_a_result_may_be_any_json(session: Any, value: Any) -> None:
    assert await named(session, "echo").call({"value": value}) == value


async def test_a_call_that_fails_is_one_error(session: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioPluginToolError, match="no api token is loaded") as caught:
        await named(session, "fail").call({})
    assert (caught.value.plugin, caught.value.tool) == ("mcp/sums", "fail")
    with pytest.raises(lms.LMStudioValueError, match="a: 'one' is not of type 'integer'"):
        await named(session, "add").call({"a": "one", "b": 2})
    assert len(server.tool_calls) == 1, "invalid arguments are not sent"
    assert await named(session, "add").call({"a": 1, "b": 2}) == 3


@pytest.mark.parametrize("where", ["session", "call"])
async def test_reports_are_called_back(client: Any, sums: Plugin, where: str) -> None:
    seen: list[Any] = []

    def report(each: lms.ToolReport) -> None:
        seen.append((each.plugin, each.tool, each.text))
        if len(seen) == 2:
            sums.gate.open()

    callbacks: dict[str, Any] = {"on_status": report, "on_warning": report}
    of_session, of_call = (callbacks, {}) if where == "session" else ({"on_status": print}, callbacks)
    async with client.plugins.tools("mcp/sums", **of_session) as session:
        assert await named(session, "wait").call({}, **of_call) == "opened"
    assert seen == [("mcp/sums", "wait", "waiting"), ("mcp/sums", "wait", "for long")]


async def test_several_plugins_are_opened_and_closed_together(client: Any, server: Emulator) -> None:
    with no_session_left(server):
        plugins: Any = {"mcp/sums": {}, "mcp/more": {"prefix": "more_"}}
        async with client.plugins.tools(plugins) as session:
            assert [tool.name for tool in session.tools] == ["add", "fail", "wait", "echo", "more_add"]
            assert await named(session, "more_add").call({"a": 2, "b": 2}) == 4
            assert server.tool_calls[-1].plugin == "mcp/more"


@pytest.mark.parametrize(
    ("plugins", "error", "text"),
    [
        ({"mcp/sums": {}, "mcp/none": {}}, lms.LMStudioPluginError, "mcp/none"),
        ({"mcp/sums": {}, "mcp/more": {}}, lms.LMStudioValueError, "'mcp/sums' and 'mcp/more' both have a tool 'add'"),
        ("mcp/none", lms.LMStudioPluginError, "mcp/sums"),
    ],
)
async def test_one_that_cannot_start_closes_the_others(
    client: Any, server: Emulator, plugins: Any, error: type[Exception], text: str
) -> None:
    session = client.plugins.tools(plugins)
    with no_session_left(server), pytest.raises(error, match=text):
        await session.start()
    with pytest.raises(lms.LMStudioRuntimeError, match="is not open"):
        _ = session.tools


@pytest.mark.parametrize(
    ("plugin", "parameters", "text"),
    [
        (5, {}, "plugin must be an identifier"),
        (" ", {}, "plugin is empty"),
        ({"mcp/sums": {"prefx": "a"}}, {}, "did you mean 'prefix'"),
        ("mcp/sums", {"prefix": 5}, "prefix must be a string"),
        ("mcp/sums", {"plugin_config": [1]}, "plugin_config must be a dict"),
        ("mcp/sums", {"working_directory": 5}, "working_directory must be a string"),
        ("mcp/sums", {"total_timeout": 0}, "total_timeout must be"),
        ("mcp/sums", {"on_status": 5}, "on_status must be a function"),
    ],
)
def test_invalid_arguments_are_rejected_at_once(plugin: Any, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        lms.AsyncClient("127.0.0.1:1").plugins.tools(plugin, **parameters)


async def test_a_timeout_aborts_the_call(session: Any, server: Emulator) -> None:
    with pytest.raises(lms.LMStudioTimeoutError, match=r"'wait' of 'mcp/sums'.*timeout expired"):
        await named(session, "wait").call({}, total_timeout=0.2)
    server.wait_for(lambda: states(server) == ["aborted"], SECONDS)
    assert await named(session, "add").call({"a": 1, "b": 2}, total_timeout=SECONDS) == 3


@pytest.mark.parametrize("limit", ["total_timeout", "load_timeout"])
async def test_a_plugin_that_never_starts_is_not_waited_for_without_end(limit: str) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        channel = (await receive(socket))["channelId"]
        await send(socket, {"type": "channelSend", "channelId": channel, "message": {"type": "sessionStarting"}})

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        limits: Any = {limit: 0.1}
        with pytest.raises(lms.LMStudioTimeoutError) as caught:
            await client.plugins.tools("mcp/sums", **limits).start()
    assert caught.value.timeout_name == limit


async def test_closing_the_session_ends_its_calls(client: Any, server: Emulator) -> None:
    async with client.plugins.tools("mcp/sums") as session:
        tool = named(session, "wait")
        running = asyncio.ensure_future(tool.call({}))
        await asyncio.to_thread(server.wait_for, lambda: states(server) == ["running"], SECONDS)
    with pytest.raises(lms.LMStudioCancelledError, match="the session was closed"):
        await running
    with no_session_left(server):
        server.wait_for(lambda: states(server) == ["aborted"], SECONDS)
    with pytest.raises(lms.LMStudioRuntimeError, match="the session was closed"):
        await tool.call({})
    assert len(server.tool_calls) == 1


async def test_closing_the_client_ends_its_sessions(make_client: Callable[..., Any], server: Emulator) -> None:
    with no_session_left(server):
        async with make_client(server.address) as client:
            session = client.plugins.tools("mcp/sums")
            await session.start()
            running = asyncio.ensure_future(named(session, "wait").call({}))
            await asyncio.to_thread(server.wait_for, lambda: states(server) == ["running"], SECONDS)
        with pytest.raises(lms.LMStudioToolConnectionLostError, match="what it has done is unknown") as caught:
            await running
        assert isinstance(caught.value, RuntimeError)  # which LangGraph's policy does not retry
        assert not caught.value.retryable
        with pytest.raises(lms.LMStudioClientClosedError):
            await named(session, "add").call({"a": 1, "b": 2})


async def test_a_cancelled_task_aborts_its_call(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client, client.plugins.tools("mcp/sums") as session:
        running = asyncio.ensure_future(named(session, "wait")())
        await asyncio.to_thread(server.wait_for, lambda: states(server) == ["running"], SECONDS)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.to_thread(server.wait_for, lambda: states(server) == ["aborted"], SECONDS)


def test_an_interrupted_thread_aborts_its_call(server: Emulator) -> None:
    def interrupt(_report: object) -> None:
        raise KeyboardInterrupt

    with lms.Client(server.address) as client, client.plugins.tools("mcp/sums", on_status=interrupt) as session:
        with pytest.raises(KeyboardInterrupt):
            named(session, "wait")()
        server.wait_for(lambda: states(server) == ["aborted"], SECONDS)


def test_a_call_in_a_closed_loop_is_aborted(server: Emulator) -> None:
    with lms.Client(server.address) as client, client.plugins.tools("mcp/sums") as session:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _loop, _context: None)
        coroutine = named(session, "wait").implementation()
        task = loop.create_task(coroutine)
        loop.call_soon(loop.stop)
        loop.run_forever()
        server.wait_for(lambda: states(server) == ["running"], SECONDS)
        loop.close()
        server.wait_for(lambda: states(server) == ["aborted"], SECONDS)
        coroutine.close()
        del coroutine, task
        gc.collect()


@pytest.mark.parametrize("forget", ["session", "session and tools"])
def test_a_forgotten_session_is_closed(server: Emulator, forget: str) -> None:
    with lms.Client(server.address) as client:
        session = client.plugins.tools("mcp/sums").start()
        tools = session.tools
        del session
        gc.disable()  # no cycle may keep it alive
        try:
            if forget == "session":
                assert tools[0](a=1, b=2) == 3
                return
            del tools
            server.wait_for(lambda: not server.running_plugins, SECONDS)
        finally:
            gc.enable()


def test_a_session_is_shared_by_threads_and_loops(server: Emulator) -> None:
    with lms.Client(server.address) as client, client.plugins.tools("mcp/sums") as session:
        echo = named(session, "echo")

        def call(number: int) -> Any:
            return int(asyncio.run(echo.implementation(value=number)).text) if number % 2 else echo(value=number)

        assert together(20, call) == [*range(20)]


@pytest.mark.parametrize(
    ("question", "reply"),
    [("add", "3"), ("chart", "a chart\n[an image of type image/png]")],
)
async def test_act_takes_the_tools(client: Any, session: Any, question: str, reply: str) -> None:
    tools = session.tools
    assert all(isinstance(tool, lms.ToolFunctionDef) for tool in tools)
    messages: list[Any] = []
    model = await client.llm.model("m")
    await model.act(question, tools, on_message=messages.append)
    assert messages[1].content[0].content == reply
    assert messages[-1].content[0].text == f"It says {reply}"


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("fail", {}, "Tool 'fail' error: no api token is loaded"),
        ("echo", {"value": FAILED}, "Tool 'echo' error: no such city"),
        ("wait", {}, None),
    ],
)
async def test_act_gives_the_model_what_a_tool_says_and_raises_what_nobody_knows(
    make_client: Callable[..., Any], tool: str, arguments: dict[str, Any], text: str | None
) -> None:
    rules = [{"when": {"role": "user"}, "then": [{"tool": tool, "arguments": arguments}]}]
    messages: list[Any] = []
    with Emulator([{"key": "m", "rules": rules}], plugins={"mcp/sums": Plugin().functions}) as server:
        async with make_client(server.address) as client:
            session = await client.plugins.tools("mcp/sums", on_status=lambda _: server.stop()).start()
            acting = (await client.llm.model("m")).act("go", session.tools, on_message=messages.append)
            if text is None:
                with pytest.raises(lms.LMStudioToolConnectionLostError):
                    await acting
                assert messages == []
            else:
                await acting
                assert json.loads(messages[1].content[0].content) == text
                assert len(server.tool_calls) == 1


@pytest.mark.parametrize("what", ["call", "start"])
async def test_what_was_not_sent_is_sent_in_a_new_session(
    client: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    opening, just_lost = PluginSession._open_channel, list[str]()

    def lose(session: PluginSession) -> Any:
        channel = opening(session)
        if just_lost:
            channel.close(lms.LMStudioPluginError(just_lost.pop()))
        return channel

    monkeypatch.setattr(PluginSession, "_open_channel", lose)
    session = client.plugins.tools("mcp/sums")
    await session.start()
    just_lost.append("The plugin has crashed")
    use = session.start if what == "start" else partial(named(session, "add").call, {"a": 1, "b": 2})
    with pytest.warns(lms.LMStudioToolSessionWarning, match="The plugin has crashed"):
        await use()
    assert [call.result for call in server.tool_calls] == ([3] if what == "call" else [])
    await session.aclose()


async def test_a_start_that_is_cancelled_closes_the_session_unless_another_start_waits_for_it() -> None:
    frames: list[Any] = []

    async def never_ready(socket: Socket) -> None:
        await authenticate(socket)
        while True:
            frames.append(await receive(socket))

    async with fake_server(never_ready) as host, lms.AsyncClient(host) as client:
        session = client.plugins.tools("mcp/slow")
        starts = [asyncio.ensure_future(session.start()) for _ in range(2)]
        await wait_until(lambda: len(frames) == 1)
        for start in starts:
            assert len(frames) == 1
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
            await wait_until(lambda: True)
        await wait_until(lambda: len(frames) == 2)
        assert frames[1]["message"] == {"type": "discardSession"}
        with pytest.raises(lms.LMStudioRuntimeError, match="is not open"):
            _ = session.tools


async def test_a_second_start_that_fails_leaves_the_session_to_those_who_use_it(
    client: Any, sums: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.plugins.tools("mcp/sums") as session:
        running = asyncio.ensure_future(named(session, "wait").call({}))
        assert await asyncio.to_thread(sums.gate.reached.wait, SECONDS)
        monkeypatch.setattr(PluginSession, "open", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await session.start()
        assert await named(session, "add").call({"a": 1, "b": 2}) == 3
        sums.gate.open()
        assert await running == "opened"


async def test_the_name_with_the_prefix_is_that_of_errors_and_reports(client: Any, sums: Plugin) -> None:
    reports: list[lms.ToolReport] = []

    def report(each: lms.ToolReport) -> None:
        reports.append(each)
        sums.gate.open()

    async with client.plugins.tools("mcp/sums", prefix="my_", on_warning=report) as session:
        with pytest.raises(lms.LMStudioPluginToolError, match="'my_fail'") as caught:
            await named(session, "my_fail").call({})
        assert caught.value.tool == "my_fail"
        await named(session, "my_wait").call({})
    assert [each.tool for each in reports] == ["my_wait"]


@pytest.mark.parametrize("odd", [{}, {"$schema": 5}, {"$schema": {}}, {"$defs": []}, {"definitions": [1]}])
def test_a_schema_that_python_cannot_check_is_still_shown_to_the_model(
    odd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    parameters = {"type": "object", "properties": {"word": {"type": "string", "pattern": "^\\p{L}+$"}}}
    definition = {"type": "function", "function": {"name": "look_up", "parameters": {**parameters, **odd}}}
    context = lms.Client("localhost:1").llm.lazy_model()._model.context
    session = PluginSession(context, spec_of("mcp/words", None), ToolCallbacks())
    tool = lms.PluginTool._of(RemoteTool(session, Tool.from_dict(definition), "look_up"), context)
    assert tool.to_tool().function.parameters == parameters
    assert tool.check({"word": 5}) == {"word": 5}
    assert "are not checked" in caplog.text


FORK = """
import os, sys, warnings
import lmstudio_integrations as lms

client = lms.Client(sys.argv[1])
with client.plugins.tools("mcp/sums") as session:
    add = session.tools[0]
    assert add(a=1, b=2) == 3
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True, action="always") as given:
            ok = add(a=2, b=2) == 4
        os._exit(0 if ok and "the process was forked" in str(given[0].message) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert add(a=3, b=2) == 5
print("both fine")
"""


@pytest.mark.slow
def test_a_forked_process_opens_a_session_of_its_own(server: Emulator) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, server.address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == "both fine\n", done.stderr
