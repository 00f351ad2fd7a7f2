"""Sessions with the tools of plugins, and messages of generators (docs/protocol.md#plugin-endpoints)."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from lmstudio_integrations._support.secrets import redact_received
from lmstudio_integrations._support.text import dumps, end_in_words, one_line, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import Finished, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.errors import SAMPLE, WireError
from lmstudio_integrations.emulator.models.plugins import PluginEntry, ReportingContext, call_function, parse_functions
from lmstudio_integrations.emulator.models.request_log import PluginCallRecord, PluginCallState, RecordEntry
from lmstudio_integrations.emulator.server.context import USER_STOPPED, Context, OpenChannel
from lmstudio_integrations.emulator.server.handlers.prediction import (
    StatsCollector,
    forward_events,
    outcome_of,
    record_of,
)
from lmstudio_integrations.emulator.server.handlers.system import REASONS, not_supported
from lmstudio_integrations.protocol.prediction import encode
from lmstudio_integrations.protocol.requests import GenerateWithGenerator, StartToolUseSession
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEnd, PredictionEvent

logger: logging.Logger = logging.getLogger(__name__)


async def start_tool_use_session(context: Context, channel: OpenChannel, parameter: StartToolUseSession) -> None:
    """Run the calls of a plugin's tools, until the client discards the session."""
    plugin = _find(context, parameter)
    if plugin.generator:
        raise WireError(f'The plugin "{plugin.identifier}" has no tools: it is a generator')
    sessions = context.state.tool_sessions
    with channel.scope:
        session = _ToolSession(context, channel, plugin)
        sessions.append(plugin.identifier)
        channel.on_packet = session.receive
        definitions = [tool.to_tool().to_dict() for tool in session.tools.values()]
        channel.send({"type": "sessionReady", "toolDefinitions": definitions})
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await session.close()
            sessions.remove(plugin.identifier)


def _find(context: Context, parameter: StartToolUseSession) -> PluginEntry:
    """Return the plugin of a request.

    Raises:
        WireError: If there is none, or the request is that of a plugin in a prediction of LM Studio's own chat.
    """
    if parameter["pluginConfigSpecifier"]["type"] == "predictionProcess":
        raise not_supported("plugins of a prediction process", REASONS["plugins"])
    identifier, plugins = parameter["pluginIdentifier"], context.state.plugins
    if identifier not in plugins:
        more = f" and {len(plugins) - SAMPLE} more" if len(plugins) > SAMPLE else ""
        names = ", ".join([*plugins][:SAMPLE]) + more
        raise WireError(
            f'Cannot find a plugin with the identifier "{shortened(identifier)}"',
            cause=f"This server has {names or 'no plugins'}.",
        )
    plugin: PluginEntry = plugins[identifier]
    return plugin


@dataclass(slots=True, eq=False)
class _Call:
    """A running call."""

    call_id: float
    entry: RecordEntry[PluginCallRecord]
    started: float
    task: "asyncio.Task[None] | None" = None


class _ToolSession:
    """A session that is ready. Each call ends once: with a result, with an error, or because it is aborted.

    Args:
        context: The client.
        channel: The channel of the session.
        plugin: Its plugin.
    """

    def __init__(self, context: Context, channel: OpenChannel, plugin: PluginEntry) -> None:
        self._state = context.state
        self._client = context.client
        self._channel = channel
        self._plugin = plugin.identifier
        self.tools = parse_functions(plugin.functions)
        # Not a task group, which would cancel an aborted call again, in the middle of what that does about it.
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: dict[float, _Call] = {}
        self._numbers = count()

    def receive(self, packet: Mapping[str, Any]) -> None:
        """Handle a packet of the client. An unknown `callId` is ignored: the call may have ended by itself."""
        match packet["type"]:
            case "callTool":
                self._start(packet)
            case "abortToolCall":
                call = self._calls.get(packet["callId"])
                if call is not None:
                    self._abort(call)
            case _:
                self._channel.scope.cancel(USER_STOPPED)

    async def close(self) -> None:
        """Abort all calls, wait until none is left, and ignore what the client still sends."""
        self._channel.on_packet = lambda _packet: None
        for call in tuple(self._calls.values()):
            self._abort(call)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, packet: Mapping[str, Any]) -> None:
        """Start a call, unless one with its id runs: the client could not tell their packets apart."""
        call_id, name, arguments = packet["callId"], packet["name"], packet["arguments"]
        if call_id in self._calls:
            return
        record = PluginCallRecord(plugin=self._plugin, tool=name, client=self._client.identifier, arguments=arguments)
        call = _Call(call_id, self._state.request_log.tool_calls.add(record), self._state.clock.now())
        self._calls[call_id] = call
        call.task = asyncio.create_task(self._run(call, name, arguments))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)

    async def _run(self, call: _Call, name: str, arguments: Any) -> None:
        """Run a call up to its last packet."""
        try:
            result = await self._result(call, name, arguments)
        except WireError as error:
            self._end(call, "failed", {"type": "toolCallError", "error": error.to_dict()}, error=error.title)
        else:
            self._end(call, "ended", {"type": "toolCallComplete", "result": result}, result=result)

    async def _result(self, call: _Call, name: str, arguments: Any) -> Any:
        """Call the tool.

        Raises:
            WireError: If it fails, in whatever way.
        """
        if name not in self.tools:
            raise WireError(
                f'The plugin "{self._plugin}" has no tool "{shortened(name)}"',
                cause=f"Its tools are {shortened(', '.join(self.tools))}.",
            )
        if not is_object(arguments):
            raise WireError(
                "The arguments of a tool must be an object", cause=f"They are {shortened(dumps(arguments))}."
            )
        context = ReportingContext(name, next(self._numbers), lambda packet: self._send(call, packet))
        try:
            return await call_function(self.tools[name], arguments, context)
        except asyncio.CancelledError:
            assert call.task is not None, "it runs"
            if call.task.cancelling():
                raise
            raise WireError("The tool was cancelled, but not by the client") from None

    def _abort(self, call: _Call) -> None:
        """End a call without a packet: for the client, it has ended already."""
        self._end(call, "aborted")
        assert call.task is not None, "it runs"
        call.task.cancel()

    def _send(self, call: _Call, packet: Mapping[str, Any]) -> None:
        """Send a packet, unless the call has ended."""
        if self._calls.get(call.call_id) is call:
            self._channel.send({**packet, "callId": call.call_id})

    def _end(
        self, call: _Call, state: PluginCallState, packet: Mapping[str, Any] | None = None, **outcome: Any
    ) -> None:
        """Record how a call has ended, then send its last packet, unless it had ended before."""
        if self._calls.get(call.call_id) is not call:
            return
        call.entry.update(state=state, **outcome)
        if packet is not None:
            self._send(call, packet)
        del self._calls[call.call_id]
        record, seconds = call.entry.record, self._state.clock.now() - call.started
        reason = f": {redact_received(record.error)}" if record.error else ""
        logger.info("%s", one_line(shortened(f"{record.plugin}: {record.tool} {state} after {seconds:.1f} s{reason}")))


async def generate_with_generator(context: Context, channel: OpenChannel, parameter: GenerateWithGenerator) -> None:
    """Write the next message of a conversation with a generator."""
    plugin = _find(context, parameter)
    if not plugin.generator:
        raise WireError(f'The plugin "{plugin.identifier}" is not a generator')
    request = GenerateRequest(
        config=LlmPredictionConfig(),
        history=parameter["history"],
        tools=parameter["tools"],
        context_length=sys.maxsize,  # a generator has no context window
    )
    record = record_of(plugin.identifier, context.client.identifier, request, {}, ())
    entry = context.state.request_log.predictions.add(record)
    collector = StatsCollector(context.state.clock, context.registry.catalog.played)
    outcome: dict[str, Any] = {"stop_reason": "disconnected"}
    finished: Finished | None = None
    try:
        with channel.scope as scope:
            load = LoadRequest(key=plugin.identifier, kind="llm", engine_settings={"rules": plugin.rules})
            model = await ScriptedEngine().load(load, lambda _progress: None)
            finished = await forward_events(model.generate(request), channel, collector, entry, encode_generated)
        if finished is None:
            assert scope.reason is not None, "an engine's last event is Finished"
            finished = collector.stopped(scope.reason)
        for event in (*collector.remaining(finished), PredictionEnd({}, {}, {}, {})):
            channel.send(encode_generated(event))
        outcome = {"stop_reason": finished.stop_reason}
    except WireError as error:
        outcome = {"stop_reason": "error", "error": error.title}
        raise
    finally:
        entry.update(state="ended", **outcome, **outcome_of(collector.received))
        end = entry.record.error or end_in_words(entry.record.stop_reason or "")
        logger.info("%s: %s", plugin.identifier, one_line(redact_received(end)))


def encode_generated(event: PredictionEvent) -> dict[str, Any]:
    """Return the packet of an event of a generator plugin, which has fewer members; see `encode`."""
    packet = encode(event)
    is_end = isinstance(event, PredictionEnd)
    omitted = packet.keys() - {"type"} if is_end else {"argumentsFormat", "error", "rawContent"}
    return {name: member for name, member in packet.items() if name not in omitted}
