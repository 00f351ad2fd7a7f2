"""MCP servers as plugins. `tests/conformance/run` runs this file with version 2 of `mcp` as well."""

import asyncio
import json
import logging
import os
import runpy
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.plugins import mcp_server, program
from lmstudio_integrations.emulator.plugins.base import CallReports, Plugin, RunningPlugin
from lmstudio_integrations.emulator.plugins.mcp_server import McpServer, RunningMcpServer

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[2] / "support"
PROGRAM = SUPPORT / "mcp_program.py"
PACKAGE_SERVER = SUPPORT / "mcp_package_server.py"

NAME = "mcp/probe"
SECRET = "RbYtNhGvXsLk"


@dataclass
class Reported:
    """What calls have reported."""

    statuses: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def reports(self) -> CallReports:
        return CallReports(self.statuses.append, self.warnings.append)


@dataclass
class Programs:
    """Starts the program with its files."""

    folder: Path
    running: list[RunningMcpServer] = field(default_factory=list)

    @property
    def recorded(self) -> list[str]:
        """What the programs have recorded."""
        return (self.folder / "record").read_text(encoding="utf-8").splitlines()

    def server(self, behavior: str = "normal", *, env: dict[str, str] | None = None, **settings: Any) -> McpServer:
        files = {"RECORD": str(self.folder / "record"), "LOCK": str(self.folder / "lock")}
        command = [sys.executable, str(PROGRAM), behavior]
        return McpServer(NAME, command=command, env={"API_KEY": SECRET, **files, **(env or {})}, **settings)

    async def start(self, behavior: str = "normal") -> RunningMcpServer:
        started = await self.server(behavior).start(None)
        self.running.append(started)
        return started

    async def all_end(self) -> None:
        """Wait until neither a program nor a child of it holds the lock."""
        import fcntl

        with (self.folder / "lock").open() as lock:
            async with asyncio.timeout(10):
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    """Programs that are stopped at the end."""
    (tmp_path / "lock").touch()
    programs = Programs(tmp_path)
    yield programs
    for each in programs.running:
        await each.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs have little time to exit."""
    monkeypatch.setattr(program, "GRACE_SECONDS", 0.1)


async def call(server: RunningPlugin, name: str, reported: Reported | None = None, **arguments: Any) -> Any:
    async with asyncio.timeout(10):
        return await server.call(name, arguments, (reported or Reported()).reports)


async def begun(server: RunningMcpServer, name: str, **arguments: Any) -> tuple[asyncio.Task[Any], Reported]:
    """Return a call that the server has read, and what it reports."""
    reported = Reported()
    task = asyncio.create_task(call(server, name, reported, **arguments))
    await asyncio.create_task(call(server, "echo"))  # the server answers it after it has read the other
    return task, reported


async def error_of(work: Awaitable[Any]) -> WireError:
    with pytest.raises(WireError) as caught:
        await work
    return caught.value


def texts(*blocks: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": block} for block in blocks]


async def test_the_tools_of_all_pages_are_listed_with_complete_schemas(programs: Programs) -> None:
    server = await programs.start()
    tools = [tool.to_dict()["function"] for tool in server.tools]
    assert len(tools) > 10
    assert tools[0] == {"name": "echo", "parameters": {"type": "object", "properties": {}}}
    assert tools[-1] == {
        "name": "die",
        "description": "Tool die",
        "parameters": {"type": "object", "properties": {"a": {}}},
    }


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("echo", {"a": None, "b": "ü"}, texts('{"a": null, "b": "\\u00fc"}')),
        ("echo", {"half of a character": "\ud83d"}, texts('{"half of a character": "\\ufffd"}')),
        ("image", {}, [*texts("an image"), {"type": "image", "data": "aGk=", "mimeType": "image/png"}]),
        ("structured", {}, {"content": texts('{"celsius": null}'), "structuredContent": {"celsius": None}}),
    ],
)
async def test_a_call_returns_what_the_server_returned(
    programs: Programs, name: str, arguments: dict[str, Any], value: object
) -> None:
    assert await call(await programs.start(), name, **arguments) == value


@pytest.mark.parametrize(
    ("name", "arguments", "title", "cause"),
    [
        ("fail", {"texts": ["no ferry", "today"]}, "no ferry\ntoday", None),
        ("fail", {"texts": []}, 'The tool "fail" failed', None),
        ("fail", {"texts": ["x" * 10_000]}, "x" * 6144 + " [… 1808 characters omitted …] " + "x" * 2048, None),
        ("fault", {}, f'The MCP server "{NAME}" cannot run the tool "fault"', f"there is a fault with {HIDDEN}"),
    ],
)
async def test_a_failure_is_an_error_with_its_text(
    programs: Programs, name: str, arguments: dict[str, Any], title: str, cause: str | None
) -> None:
    error = await error_of(call(await programs.start(), name, **arguments))
    assert (error.title, error.cause) == (title, cause)


async def test_progress_is_reported_as_the_status_of_its_call(programs: Programs) -> None:
    server = await programs.start()
    _, other = await begun(server, "hold")
    reported = Reported()
    await call(server, "report", reported)
    assert reported.statuses == ["begun", "2.5", "12345678/20000000"]
    assert not other.statuses


async def test_log_messages_from_warnings_on_go_to_all_running_calls(programs: Programs) -> None:
    server = await programs.start()
    _, other = await begun(server, "hold")
    reported, later = Reported(), Reported()
    await call(server, "log", reported)
    await call(server, "echo", later)
    assert reported.warnings == other.warnings == ["watch out", '{"disk": "full"}']
    assert not later.warnings


async def test_several_calls_run_at_once(programs: Programs) -> None:
    server = await programs.start()
    held = [(await begun(server, "hold", a=number))[0] for number in range(3)]
    assert await call(server, "release") == []
    assert [await task for task in held] == [texts(str({"a": number})) for number in range(3)]


async def test_cancelling_a_call_cancels_it_on_the_server_and_nothing_else(programs: Programs) -> None:
    server = await programs.start()
    first, _ = await begun(server, "hold", a=1)
    second, _ = await begun(server, "hold", a=2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await call(server, "release")
    assert await second == texts(str({"a": 2}))
    assert [line for line in programs.recorded if line.startswith("cancelled")] == ["cancelled {'a': 1}"]


async def test_a_server_that_dies_fails_all_calls_and_is_not_started_again(
    programs: Programs, caplog: pytest.LogCaptureFixture
) -> None:
    server = await programs.start()
    held, _ = await begun(server, "hold")
    for work in (call(server, "die"), held, call(server, "echo")):
        error = await error_of(work)
        assert error.title == f'The MCP server "{NAME}" has ended'
        assert error.cause == "It ended with exit code 7.\nI am here\nmy last words"
    assert programs.recorded == ["start", "call hold", "call echo", "call die"]
    assert (
        f"{shlex.join([sys.executable, str(PROGRAM), 'normal'])}') has ended: It ended with exit code 7" in caplog.text
    )


async def test_a_server_that_dies_without_a_call_has_ended(programs: Programs) -> None:
    server = await programs.start()
    assert server._program is not None
    server._program._transport.kill()
    await asyncio.wait_for(asyncio.wait([server.ended]), 10)
    assert server.ended.result().cause == "It ended with exit code -9.\nI am here"


async def test_a_message_that_is_too_long_ends_the_session(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LONGEST_LINE", 10_000)
    server = await programs.start()
    error = await error_of(call(server, "echo", text="x" * 10_000))
    assert "has ended" in error.title
    assert str(error.cause).startswith("It wrote a line of more than 10,000 bytes.")


async def test_output_that_is_no_message_is_logged(programs: Programs, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, mcp_server.__name__):
        server = await programs.start("chatty")
    assert await call(server, "echo") == texts("{}")
    assert "Welcome!" in caplog.text


@pytest.mark.parametrize(
    ("behavior", "cause"),
    [
        ("exit", f"It ended with exit code 1.\nI cannot find my configuration, with {HIDDEN}"),
        ("silent", "It did not list its tools within 0.5 s.\nI am here"),
        ("old", "I do not know this version\nI am here"),
    ],
)
@pytest.mark.usefixtures("quick")
async def test_a_program_that_is_no_server_is_an_error_with_its_last_words(
    programs: Programs, behavior: str, cause: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if behavior == "silent":
        monkeypatch.setattr(mcp_server, "START_SECONDS", 0.5)
    server = programs.server(behavior)
    async with asyncio.timeout(10):
        error = await error_of(server.start(None))
    assert error.title == f'The MCP server "{NAME}" cannot be started'
    assert error.cause == cause
    assert error.suggestion == "Run its command, which is in the log of the server, in a terminal."
    assert shlex.join([sys.executable, str(PROGRAM)]) in caplog.text
    assert SECRET not in f"{error.to_dict()} {caplog.text} {server!r}"
    await programs.all_end()


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"command": ["no-such-program", "--fast"]}, "[Errno 2] No such file or directory: 'no-such-program'"),
        (
            {"command": [sys.executable], "working_directory": "/no/such/folder"},
            "[Errno 2] No such file or directory: 'folder'",
        ),
        ({"command": [sys.executable, "a\0b"]}, "embedded null byte"),
        ({"url": "http://127.0.0.1:1/mcp?key=" + SECRET}, "All connection attempts failed"),
    ],
)
async def test_a_server_that_is_not_there_is_an_error(settings: dict[str, Any], cause: str) -> None:
    server = McpServer(NAME, **settings)
    error = await error_of(server.start(server.directory(None)))
    assert error.title == f'The MCP server "{NAME}" cannot be started'
    assert error.cause == cause
    assert SECRET not in str(error.to_dict())


@pytest.mark.parametrize(("behavior", "shares"), [("normal", None), ("stubborn", "errors"), ("stubborn", "output")])
@pytest.mark.usefixtures("quick")
async def test_stopping_ends_the_program_and_its_children_and_fails_its_calls(
    programs: Programs, behavior: str, shares: str | None
) -> None:
    server = await programs.start(behavior)
    await call(server, "start", shares=shares)
    held, _ = await begun(server, "hold")
    async with asyncio.timeout(10):
        await asyncio.gather(server.stop(), server.stop())
    await programs.all_end()
    for work in (held, call(server, "echo")):
        error = await error_of(work)
        assert "has ended" in error.title
        assert str(error.cause).startswith("It was stopped.")


@pytest.mark.usefixtures("quick")
async def test_cancelling_a_start_ends_the_program(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = asyncio.Event()
    monkeypatch.setattr(program.logger, "debug", lambda *_: printed.set())
    starting = asyncio.create_task(programs.server("silent").start(None))
    async with asyncio.timeout(10):
        await printed.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    await programs.all_end()


COMMAND: dict[str, Any] = {"command": ["run"]}


@pytest.mark.parametrize(
    ("settings", "chosen", "directory"),
    [
        (COMMAND, None, None),
        (COMMAND, "", None),
        (COMMAND, "/a", "/a"),
        (COMMAND, "/a/", "/a"),
        (COMMAND, "/a/b/..", "/a"),
        (COMMAND | {"working_directory": "/own"}, None, "/own"),
        (COMMAND | {"working_directory": "/own"}, "/a", "/own"),
        ({"url": "http://localhost"}, "/a", None),
    ],
)
def test_a_client_chooses_the_directory_of_a_program_without_its_own(
    settings: dict[str, Any], chosen: str | None, directory: str | None
) -> None:
    found = McpServer(NAME, **settings).directory(chosen)
    assert found == (None if directory is None else os.path.normpath(directory))


async def test_a_program_has_its_directory_and_its_environment_and_little_of_ours(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", SECRET)
    started = await programs.server(env={"TOWN": "Ulm"}).start(str(programs.folder))
    programs.running.append(started)
    where = json.loads((await call(started, "where"))[0]["text"])
    assert where["directory"] == str(programs.folder)
    assert where["environment"]["TOWN"] == "Ulm"
    assert where["environment"]["PATH"] == os.environ["PATH"]
    assert "OTHER_KEY" not in where["environment"]


@pytest.mark.parametrize(
    ("settings", "text", "shown"),
    [
        ({"headers": {"Authorization": f"Bearer {SECRET}"}}, f"no such key: {SECRET}!", f"no such key: {HIDDEN}!"),
        ({"env": {"A": SECRET, "B": SECRET[:-1]}}, f"{SECRET} {SECRET[:-1]}", f"{HIDDEN} {HIDDEN}"),
        ({"env": {"DEBUG": "1", "EMPTY": ""}}, "line 1", "line 1"),
        ({}, "http://me:secret@host", f"http://{HIDDEN}@host"),
    ],
)
def test_secrets_are_hidden_in_what_a_server_says(settings: dict[str, Any], text: str, shown: str) -> None:
    assert McpServer(NAME, **settings).hide(text) == shown


@asynccontextmanager
async def over_stdio() -> AsyncIterator[Plugin]:
    yield McpServer(NAME, command=[sys.executable, str(PACKAGE_SERVER)])


@asynccontextmanager
async def served(app: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve an application, and yield the URL of its MCP server."""
    web = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", port)) as listener:
        serving = asyncio.create_task(web.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        web.should_exit = True
        await serving


@asynccontextmanager
async def over_http(port: int = 0) -> AsyncIterator[Plugin]:
    """Serve it on a port of its own; it does not answer requests without the header."""
    app = runpy.run_path(str(PACKAGE_SERVER))["server"].streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "http" or (b"x-key", SECRET.encode()) in scope["headers"]
        await app(scope, receive, send)

    async with served(guarded, port) as url:
        yield McpServer(NAME, url=url, headers={"X-Key": SECRET})


Serve = Callable[[], AbstractAsyncContextManager[Plugin]]


@pytest.mark.parametrize("serve", [over_stdio, over_http])
async def test_a_server_that_is_written_with_mcp_works_and_notices_a_cancellation(serve: Serve) -> None:
    async with serve() as server, asyncio.timeout(30):
        started = await server.start(None)
        assert [tool.function.name for tool in started.tools] == ["add", "hold", "wait_for_hold"]
        assert (started.tools[0].function.parameters or {})["required"] == ["a", "b"]
        reported = Reported()
        value = await call(started, "add", reported, a=2, b=3)
        assert value == {"content": texts("5"), "structuredContent": {"result": 5}}
        assert reported.statuses == ["adding 2 and 3"]
        holding = asyncio.Event()
        reports = CallReports(status=lambda _: holding.set(), warn=pytest.fail)
        held = asyncio.create_task(started.call("hold", {}, reports))
        await holding.wait()
        held.cancel()
        assert (await call(started, "wait_for_hold"))["content"] == texts("ended")
        assert held.cancelled()
        await started.stop()


async def test_a_server_on_the_network_that_has_gone_has_ended() -> None:
    async with over_http() as server:
        started = await server.start(None)
    assert NAME in (await error_of(call(started, "add", a=1, b=2))).title
    await asyncio.wait_for(asyncio.wait([started.ended]), 10)


@asynccontextmanager
async def hanging(*methods: str) -> AsyncIterator[Plugin]:
    """Serve over HTTP what does not answer these requests, of HTTP or of MCP."""
    answers: dict[str, Any] = {
        "initialize": {"capabilities": {"tools": {}}, "serverInfo": {"name": "slow", "version": "1"}},
        "tools/list": {"tools": [{"name": "hold", "inputSchema": {"type": "object"}}]},
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while scope["method"] == "POST" and (part := await receive()):
            body += part["body"]
            if not part["more_body"]:
                break
        message = json.loads(body or "{}")
        if {scope["method"], message.get("method")} & {*methods}:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        result = dict(answers.get(message.get("method"), {}))
        if message.get("method") == "initialize":
            result["protocolVersion"] = message["params"]["protocolVersion"]
        status = 405 if scope["method"] == "GET" else 200 if "id" in message else 202
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result} if "id" in message else {}
        await send({"type": "http.response.body", "body": json.dumps(answer).encode() if answer else b""})

    async with served(app) as url:
        yield McpServer(NAME, url=url)


async def test_a_server_that_does_not_answer_the_disconnection_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_server, "DISCONNECT_SECONDS", 0.1)
    async with hanging("DELETE") as server, asyncio.timeout(10):
        started = await server.start(None)
        await started.stop()
        assert str((await error_of(call(started, "hold"))).cause) == "It was stopped."
