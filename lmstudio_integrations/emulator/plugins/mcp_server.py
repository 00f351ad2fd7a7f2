"""MCP servers as plugins: a program or a URL, whose tools clients call. The package `mcp` speaks to them.

`registry.py` makes an `McpServer` and starts it. Versions 1 and 2 of `mcp` work: the attributes of their models
differ, so what is read of them is read as JSON.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import anyio
import mcp.types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import ClientSession
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.message import SessionMessage
from pydantic import BaseModel, TypeAdapter, ValidationError

from lmstudio_integrations._support.secrets import HIDDEN, redact, redact_address, redacted_url
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.version import __version__
from lmstudio_integrations.emulator.engines.errors import without_directories
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.plugins.base import CallReports
from lmstudio_integrations.emulator.plugins.program import Program
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import without_surrogates
from lmstudio_integrations.types._json_schemas import wire_tool
from lmstudio_integrations.types.tools import Tool

logger: logging.Logger = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long a server may take until it has listed its tools. Launchers such as `npx` download it first."""

CANCEL_SECONDS = 5.0
"""How long a server may take to read that a call is cancelled."""

DISCONNECT_SECONDS = 2.0
"""How long a server on the network may take to end its session. It may be hanging."""

DRAIN_SECONDS = 1.0
"""How long the output of a program is read once it has exited: what it has started may keep it open."""

_SHORTEST_SECRET = 6
"""Characters from which on a word of `env` or `headers` is hidden in what a server says. A shorter one is a number or a
flag, and hiding it would garble the text."""

SHOWN_LINES = 10
"""The last lines of a program's standard error that an error shows."""

WARNING_LEVELS = {"warning", "error", "critical", "alert", "emergency"}
"""The levels of log messages that are passed on to the running calls."""

_CLIENT = mcp.types.Implementation(name="lmstudio-integrations", version=__version__)

_MESSAGE: TypeAdapter[Any] = TypeAdapter(mcp.types.JSONRPCMessage)

_Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class McpServer:
    """An MCP server: either a command, which is run and spoken to over its pipes, or a URL with streamable HTTP.

    The catalog has checked the arguments.

    Args:
        identifier: The plugin's identifier. Those of LM Studio begin with `mcp/`.
        command: The program and its arguments. It inherits what MCP clients usually pass on, such as `PATH` and `HOME`.
        url: The URL of a server that is running. Version 1 of `mcp` does not notice that it disappears during a call,
            which then runs until it is cancelled, or the next call finds that the server has gone.
        env: Further environment variables of the program.
        headers: Headers of all requests to the URL.
        working_directory: The directory in which the program runs. By default, clients choose it, or it is that of
            this process.
    """

    def __init__(
        self,
        identifier: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        working_directory: str | None = None,
    ) -> None:
        self.identifier = identifier
        self.command: tuple[str, ...] = tuple(command or ())
        self.url: str = url or ""
        self.env: dict[str, str] = dict(env or {})
        self.headers: dict[str, str] = dict(headers or {})
        self.working_directory = working_directory

    def __repr__(self) -> str:
        """Show where the server is, without what may be secret."""
        return f"McpServer({self.identifier!r}, {self.location!r})"

    def hide(self, text: str) -> str:
        """Return a text without what looks like a secret, and without the values of the environment and the headers."""
        values = " ".join([*self.env.values(), *self.headers.values()]).split()
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, HIDDEN)
        return redact(text)

    @property
    def location(self) -> str:
        """The command as for a shell, or the URL, without what looks like a secret."""
        return redact_address(shlex.join(self.command)) if self.command else redacted_url(self.url)

    def directory(self, chosen: str | None) -> str | None:
        """Return the directory in which the program runs: its own, or else the one that the client has chosen."""
        directory = self.working_directory or chosen
        return os.path.normpath(directory) if self.command and directory else None

    async def start(self, working_directory: str | None) -> "RunningMcpServer":
        """Start or connect the server and list its tools. Cancelling stops it.

        Raises:
            WireError: If it cannot be started, ends, or does not answer in time.
        """
        running = RunningMcpServer(self, working_directory)
        try:
            await running.wait_until_started()
        except BaseException:
            await running.stop()
            raise
        return running


class RunningMcpServer:
    """An MCP server that runs, and the session with it. `tools` are those that it listed at the start.

    The session ends when the program ends, or the server on the network does not know it any more.
    """

    def __init__(self, server: McpServer, working_directory: str | None) -> None:
        self.tools: tuple[Tool, ...] = ()
        self._server = server
        self._working_directory = working_directory
        self._program: Program | None = None
        self._session: ClientSession | None = None
        self._scope = anyio.CancelScope()
        self._calls: dict[anyio.CancelScope, CallReports] = {}
        self._started = asyncio.Event()
        self._has_program_ended = False
        self._error: Exception | None = None
        self._reason = ""
        # A task of its own, because one task must enter and leave the cancel scopes of `mcp`.
        self.ended: asyncio.Future[WireError] = asyncio.create_task(self._run())

    async def wait_until_started(self) -> None:
        """Wait until the tools are listed.

        Raises:
            WireError: If the server has ended before that.
        """
        await self._started.wait()
        if self._session is None:
            await asyncio.wait([self.ended])
            raise self._ended_error("cannot be started")

    async def call(self, name: str, arguments: Mapping[str, Any], reports: CallReports) -> Any:
        """Call a tool. Cancelling the task cancels the call on the server.

        MCP's log messages do not name the call that they belong to: those that are warnings go to all running calls.

        Returns:
            The content of the result, a list of MCP's content blocks. If the server sent structured content as well, an
            object with both: `content` and `structuredContent`.

        Raises:
            WireError: If the tool or the server fails, or has ended.
        """
        session, result = self._session, None
        if session is not None:
            with anyio.CancelScope() as scope:
                self._calls[scope] = reports
                try:
                    result = _to_dict(await _call_tool(session, name, arguments, reports))
                except Exception as error:
                    if self._session is not None:
                        problem = f'The MCP server "{self._server.identifier}" cannot run the tool "{name}"'
                        cause = without_directories(self._server.hide(shortened(_text_of(error))))
                        raise WireError(problem, cause=cause) from error
                finally:
                    del self._calls[scope]
        if result is None:
            await asyncio.wait([self.ended])
            raise self._ended_error("has ended")
        return _value_of(name, result)

    async def stop(self) -> None:
        """End the session and the program. Calls that still run fail."""
        self._end_session()
        await asyncio.wait([self.ended])

    async def _run(self) -> WireError:
        """Run the session from its start to its end; return the error for calls after it."""
        try:
            async with (
                self._connect() as (incoming, outgoing),
                ClientSession(incoming, outgoing, logging_callback=self._on_log, client_info=_CLIENT) as session,
            ):
                with self._scope:
                    try:
                        with anyio.fail_after(START_SECONDS):
                            self.tools = await _list_tools(session)
                        self._session = session
                        self._started.set()
                        await anyio.sleep_forever()
                    except Exception as error:  # noqa: BLE001 - it goes to whoever waits or calls
                        self._error = error  # here, because a timeout of the disconnection would replace it
                    finally:
                        self._session = None  # before `mcp` fails the calls
        except Exception as error:  # noqa: BLE001
            self._error = self._error or error
        finally:
            self._reason = self._reason_of(self._error)
            for scope in self._calls:
                scope.cancel()
            self._started.set()
        if self._error is not None or self._has_program_ended:
            # The log, which the operator of the server reads, has the command, and all paths.
            logger.warning("%s has ended: %s", self._server, self._reason)
        return self._ended_error("has ended")

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncGenerator[_Streams, None]:
        """Yield the streams of the messages from and to the server; afterwards, it is disconnected or has ended."""
        if self._server.url:
            client = create_mcp_http_client(self._server.headers)
            client.event_hooks["response"].append(self._on_response)
            with anyio.CancelScope() as scope:
                async with (
                    client,
                    streamable_http_client(self._server.url, http_client=client) as (incoming, outgoing, *_),
                ):
                    try:
                        yield incoming, outgoing
                    finally:
                        scope.deadline = anyio.current_time() + DISCONNECT_SECONDS
            return
        self._program = await Program.start(
            self._server.command,
            env=get_default_environment() | self._server.env,
            working_directory=self._working_directory,
        )
        received, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
        outgoing, to_send = anyio.create_memory_object_stream[SessionMessage]()
        try:
            with received, incoming, outgoing, to_send:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._receive, self._program, received)
                    tasks.start_soon(self._send, self._program, to_send)
                    tasks.start_soon(self._wait, self._program)
                    yield incoming, outgoing
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._program.stop()

    async def _receive(self, program: Program, received: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Forward what the program writes, until it closes its output."""
        with contextlib.suppress(anyio.BrokenResourceError):  # the session has ended
            async for line in program.read():
                try:
                    message = _MESSAGE.validate_json(line, by_name=False)
                except ValidationError:
                    logger.debug("the MCP server %s wrote no message: %s", self._server.identifier, line)
                else:
                    await received.send(SessionMessage(message))
            self._on_program_end()

    async def _send(self, program: Program, to_send: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Write the messages to the program, until it closes its input."""
        try:
            async for message in to_send:
                await program.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode())
        except ConnectionError:
            self._on_program_end()

    async def _wait(self, program: Program) -> None:
        """Wait until the program exits, even if what it has started keeps its pipes open."""
        await program.wait()
        await anyio.sleep(DRAIN_SECONDS)
        self._on_program_end()

    def _on_program_end(self) -> None:
        """End the session, because the program has exited, or closed a pipe."""
        self._has_program_ended = self._has_program_ended or not self._scope.cancel_called
        self._end_session()

    async def _on_response(self, response: Any) -> None:
        """End the session if the server does not know it, for example because it was started again."""
        request = response.request
        is_unknown = response.status_code == HTTPStatus.NOT_FOUND and "mcp-session-id" in request.headers
        if is_unknown and request.method == "POST" and self._session is not None:
            self._error = self._error or ConnectionError("The server does not know the session any more.")
            self._end_session()

    def _end_session(self) -> None:
        self._session = None
        self._scope.cancel()

    async def _on_log(self, params: mcp.types.LoggingMessageNotificationParams) -> None:
        text = params.data if isinstance(params.data, str) else json.dumps(params.data, ensure_ascii=False)
        logger.debug("the MCP server %s logged: %s: %s", self._server.identifier, params.level, text)
        if params.level in WARNING_LEVELS:
            for reports in self._calls.values():
                reports.warn(text)

    def _reason_of(self, error: Exception | None) -> str:
        """Return why the session has ended, with what the program wrote last."""
        while isinstance(error, ExceptionGroup):
            error = cast("ExceptionGroup[Exception]", error).exceptions[0]
        program = self._program
        if program and self._has_program_ended:
            reason = f"It ended with exit code {program.exit_code}."
        elif isinstance(error, TimeoutError):
            reason = f"It did not list its tools within {START_SECONDS:g} s."
        elif error:
            reason = _text_of(error)
        else:
            reason = "It was stopped."
        return self._server.hide(shortened(f"{reason}\n{program.last_errors(SHOWN_LINES) if program else ''}".strip()))

    def _ended_error(self, problem: str) -> WireError:
        """Return the error for a server whose session has ended."""
        # The command may contain secrets that nobody can recognize.
        url = f"Check that it runs at {self._server.location}"
        suggestion = url if self._server.url else "Run its command, which is in the log of the server, in a terminal."
        return WireError(
            f'The MCP server "{self._server.identifier}" {problem}',
            cause=without_directories(self._reason),
            suggestion=suggestion,
        )


async def _list_tools(session: ClientSession) -> tuple[Tool, ...]:
    """Begin a session, and return all tools of its server."""
    if (await session.initialize()).capabilities.tools is None:
        return ()
    tools: list[Tool] = []
    cursor = None
    while True:
        page = _to_dict(await session.list_tools(params=mcp.types.PaginatedRequestParams(cursor=cursor)))
        tools += map(_tool, page["tools"])
        cursor = page.get("nextCursor")
        if cursor is None:
            return tuple(tools)


def _tool(definition: Mapping[str, Any]) -> Tool:
    name, description = definition["name"], definition.get("description")
    try:
        # The wire keeps few members of a schema (docs/protocol.md#tool-definitions).
        return Tool.from_dict(wire_tool(name, description, definition["inputSchema"]))
    except LMStudioValueError as error:
        logger.warning("the parameters of the tool %r are left out: %s", name, error)
        return Tool.from_dict(wire_tool(name, description, {}))


async def _call_tool(
    session: ClientSession, name: str, arguments: Mapping[str, Any], reports: CallReports
) -> mcp.types.CallToolResult:
    """Call a tool; if that is cancelled, cancel it on the server as well."""

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.status(message or (f"{progress:.15g}" if total is None else f"{progress:.15g}/{total:.15g}"))

    # The id of the next request. Version 2 has no such attribute, and sends the cancellation itself.
    request_id = getattr(session, "_request_id", None)
    try:
        return await session.call_tool(name, _sendable(arguments), progress_callback=on_progress)
    except asyncio.CancelledError:
        if request_id is not None:
            parameters = mcp.types.CancelledNotificationParams(requestId=request_id)
            notification = mcp.types.ClientNotification(mcp.types.CancelledNotification(params=parameters))
            ended = (anyio.ClosedResourceError, anyio.BrokenResourceError)
            with anyio.move_on_after(CANCEL_SECONDS, shield=True), contextlib.suppress(*ended):
                await session.send_notification(notification)
        raise


def _sendable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without lone surrogates, which would end the session."""
    sendable: dict[str, Any] = json.loads(without_surrogates(json.dumps(arguments, ensure_ascii=False)))
    return sendable


def _value_of(name: str, result: Mapping[str, Any]) -> Any:
    """Return what a tool has returned.

    Raises:
        WireError: If it has failed.
    """
    if result.get("isError"):
        texts = [block["text"] for block in result["content"] if block["type"] == "text"]
        raise WireError(shortened("\n".join(texts)) or f'The tool "{name}" failed')
    value = {key: result[key] for key in ("content", "structuredContent") if key in result}
    return value if len(value) > 1 else value["content"]


def _to_dict(value: BaseModel) -> dict[str, Any]:
    """Return the wire form, which both versions of `mcp` share."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def _text_of(error: Exception) -> str:
    return str(error) or type(error).__name__
