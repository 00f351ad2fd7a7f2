"""Sessions with the tools of plugins, and messages of generators (docs/protocol.md#plugin-endpoints)."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from lmstudio_integrations._support.text import dumps, end_in_words, one_line, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent, Fault, Finished, GenerateRequest
from lmstudio_integrations.emulator.errors import WireError, plugin_not_found
from lmstudio_integrations.emulator.plugins import CallReports, FunctionPlugin, GeneratorPlugin, Plugin
from lmstudio_integrations.emulator.server.context import USER_STOPPED, Context, OpenChannel
from lmstudio_integrations.emulator.server.handlers.prediction import StatsCollector, outcome_of, record_of
from lmstudio_integrations.emulator.server.handlers.system import REASONS, not_supported
from lmstudio_integrations.emulator.testing.request_log import (
    PluginCallRecord,
    PluginCallState,
    PredictionRecord,
    RecordEntry,
)
from lmstudio_integrations.protocol.prediction import encode_generated
from lmstudio_integrations.protocol.requests import GenerateWithGenerator, StartToolUseSession
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEnd

logger: logging.Logger = logging.getLogger(__name__)

_MOST_TEXTS = 100
"""Status texts, and warnings, of one call that its record keeps."""

_TEXT_KEPT = 200
"""Characters of each of them that it keeps."""


async def start_tool_use_session(context: Context, channel: OpenChannel, parameter: StartToolUseSession) -> None:
    """Run the calls of a plugin's tools, until the client discards the session."""
    plugin = _find(context, parameter)
    if isinstance(plugin, GeneratorPlugin):
        raise WireError(f'The plugin "{plugin.identifier}" has no tools: it is a generator')
    sessions = context.state.tool_sessions
    with channel.scope:
        session = _ToolSession(context, channel, plugin)
        sessions.append(plugin.identifier)
        channel.on_packet = session.receive
        channel.send({"type": "sessionReady", "toolDefinitions": [tool.to_dict() for tool in plugin.tools]})
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await session.close()
            sessions.remove(plugin.identifier)


def _find(context: Context, parameter: StartToolUseSession) -> Plugin:
    """Return the plugin of a request.

    Raises:
        WireError: If there is none, or the request is that of a plugin in a prediction of LM Studio's own chat.
    """
    if parameter["pluginConfigSpecifier"]["type"] == "predictionProcess":
        raise not_supported("plugins of a prediction process", REASONS["plugins"])
    identifier, plugins = parameter["pluginIdentifier"], context.state.plugins
    if identifier not in plugins:
        raise plugin_not_found(identifier, list(plugins))
    return plugins[identifier]


@dataclass(slots=True, eq=False)
class _Call:
    """A running call."""

    call_id: float
    entry: RecordEntry[PluginCallRecord]
    started: float
    task: "asyncio.Task[None] | None" = None
    status_texts: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


class _ToolSession:
    """A session that is ready. Each call ends once: with a result, with an error, or because it is aborted.

    Args:
        context: The client.
        channel: The channel of the session.
        plugin: Its plugin.
    """

    def __init__(self, context: Context, channel: OpenChannel, plugin: FunctionPlugin) -> None:
        self._state = context.state
        self._client = context.client
        self._channel = channel
        self._plugin = plugin
        # Not a task group, which would cancel an aborted call again, in the middle of what that does about it.
        self._tasks: set[asyncio.Task[None]] = set()
        self._names = [tool.function.name for tool in plugin.tools]
        self._calls: dict[float, _Call] = {}

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
        record = PluginCallRecord(
            plugin=self._plugin.identifier, tool=name, client=self._client.identifier, arguments=arguments
        )
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
            if self._record_end(call, "failed", error=error.title):
                self._send(call, "toolCallError", error=error.to_dict())
        else:
            if self._record_end(call, "ended", result=result):
                self._send(call, "toolCallComplete", result=result)

    async def _result(self, call: _Call, name: str, arguments: Any) -> Any:
        """Call the tool.

        Raises:
            WireError: If it fails, in whatever way.
        """
        if name not in self._names:
            raise WireError(
                f'The plugin "{self._plugin.identifier}" has no tool "{shortened(name)}"',
                cause=f"Its tools are {shortened(', '.join(self._names))}.",
            )
        if not is_object(arguments):
            raise WireError(
                "The arguments of a tool must be an object", cause=f"They are {shortened(dumps(arguments))}."
            )
        reports = CallReports(
            status=partial(self._report, call, "toolCallStatus", "statusText", call.status_texts),
            warn=partial(self._report, call, "toolCallWarn", "warnText", call.warnings),
        )
        try:
            return await self._plugin.call(name, arguments, reports)
        except asyncio.CancelledError:
            assert call.task is not None, "it runs"
            if call.task.cancelling():
                raise
            raise WireError("The tool was cancelled, but not by the client") from None

    def _report(self, call: _Call, kind: str, member: str, texts: list[str], text: str) -> None:
        """Send what a tool reports, unless its call has ended."""
        if self._calls.get(call.call_id) is not call:
            return
        text = shortened(text)
        texts.append(text if len(text) <= _TEXT_KEPT else f"{text[:_TEXT_KEPT]}…")
        del texts[:-_MOST_TEXTS]
        call.entry.update(status_texts=list(call.status_texts), warnings=list(call.warnings))
        self._send(call, kind, **{member: text})

    def _abort(self, call: _Call) -> None:
        """End a call without a packet: for the client, it has ended already."""
        self._record_end(call, "aborted")
        assert call.task is not None, "it runs"
        call.task.cancel()

    def _record_end(self, call: _Call, state: PluginCallState, **outcome: Any) -> bool:
        """Record how a call has ended; return whether it had not ended before."""
        if self._calls.get(call.call_id) is not call:
            return False
        del self._calls[call.call_id]
        texts = {"status_texts": list(call.status_texts), "warnings": list(call.warnings)}
        call.entry.update(state=state, **texts, **outcome)
        record, seconds = call.entry.record, self._state.clock.now() - call.started
        reason = f": {record.error}" if record.error else ""
        logger.info("%s", one_line(shortened(f"{record.plugin}: {record.tool} {state} after {seconds:.1f} s{reason}")))
        return True

    def _send(self, call: _Call, kind: str, **members: Any) -> None:
        self._channel.send({"type": kind, "callId": call.call_id, **members})


async def generate_with_generator(context: Context, channel: OpenChannel, parameter: GenerateWithGenerator) -> None:
    """Write the next message of a conversation with a generator."""
    plugin = _find(context, parameter)
    if not isinstance(plugin, GeneratorPlugin):
        raise WireError(f'The plugin "{plugin.identifier}" is not a generator')
    request = GenerateRequest(
        config=LlmPredictionConfig(),
        history=parameter["history"],
        tools=parameter["tools"],
        context_length=sys.maxsize,  # a generator has no context window
    )
    record = record_of(plugin.identifier, context.client.identifier, request, {}, ())
    entry = context.state.request_log.predictions.add(record)
    collector = StatsCollector(context.state.clock)
    outcome: dict[str, Any] = {"stop_reason": "disconnected"}
    try:
        finished = await _generate(channel, plugin, request, collector, entry)
        for event in (*collector.remaining(finished), PredictionEnd({}, {}, {}, {})):
            channel.send(encode_generated(event))
        outcome = {"stop_reason": finished.stop_reason}
    except WireError as error:
        outcome = {"stop_reason": "error", "error": error.title}
        raise
    finally:
        entry.update(state="ended", **outcome, **outcome_of(collector.received))
        end = entry.record.error or end_in_words(entry.record.stop_reason or "")
        logger.info("%s: %s", plugin.identifier, one_line(end))


async def _generate(
    channel: OpenChannel,
    plugin: GeneratorPlugin,
    request: GenerateRequest,
    collector: StatsCollector,
    entry: RecordEntry[PredictionRecord],
) -> Finished:
    """Send the events of a generator; return how they ended: by themselves, or because the client cancelled."""
    entry.update(state="running")
    collector.start()
    with channel.scope as scope:
        model = await plugin.start()
        async with aclosing(cast("AsyncGenerator[EngineEvent, None]", model.generate(request))) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event
                if isinstance(event, Fault):
                    await channel.inject_fault(event.kind)
                    continue
                for ready in collector.add(event):
                    channel.send(encode_generated(ready))
                entry.live["fragments"] = len(collector.received.fragments)
                # Send the packet and handle a cancel before the next token (docs/protocol.md#check-cancel-points).
                await asyncio.sleep(0)
    assert scope.reason is not None, "the last event is Finished"
    return collector.stopped(scope.reason)
