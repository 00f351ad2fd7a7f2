"""Sessions with the tools of plugins (docs/protocol.md#tool-sessions): open them, list the tools, call them.

`api/plugins.py` has the sessions as users see them. Threads and coroutines of any event loop may share one: each call
waits in its own way. A call is never repeated, because tools have effects.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.support.advice import NAME_A_PLUGIN, with_advice
from lmstudio_integrations.client.support.arguments import check_names, optional_text, text_of
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.caller import Caller
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Call, Operation, decode_errors
from lmstudio_integrations.client.transport.waiters import ThreadWaiter
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioChannelClosedError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioPluginError,
    LMStudioPluginToolError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioToolConnectionLostError,
    LMStudioToolSessionWarning,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.endpoints import channel
from lmstudio_integrations.protocol.envelope import sanitized, without_surrogates
from lmstudio_integrations.protocol.errors import error_object, to_exception
from lmstudio_integrations.protocol.kv_config import fields_of
from lmstudio_integrations.protocol.requests import DirectConfig, StartToolUseSession
from lmstudio_integrations.protocol.session import closed_early
from lmstudio_integrations.protocol.tool_session import CALL_TOOL, LIST_TOOLS
from lmstudio_integrations.types.plugins import ToolReport
from lmstudio_integrations.types.tools import Tool

OnReport = Callable[[ToolReport], Any]

_START = channel("plugins", "startToolUseSession")


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """Which plugin, and how it runs.

    Attributes:
        request: What opens a session with it, in wire form.
        prefix: What its tools have before their names.
    """

    request: StartToolUseSession
    prefix: str = ""

    @property
    def identifier(self) -> str:
        """The identifier of the plugin."""
        return self.request["pluginIdentifier"]


@dataclass(frozen=True, slots=True)
class ToolCallbacks:
    """What is called while a tool runs, in the thread or task that waits for it.

    Attributes:
        on_status: Called with what the tool is doing.
        on_warning: Called with the problems that it has solved by itself.
    """

    on_status: OnReport | None = None
    on_warning: OnReport | None = None


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool of an open session.

    Attributes:
        session: Its session.
        definition: Its definition, under the name that it has in its session.
        name: Its name for models and programs, with the prefix.
    """

    session: "PluginSession"
    definition: Tool
    name: str

    def call(
        self, operation: Operation, arguments: Mapping[str, Any], callbacks: ToolCallbacks | None = None
    ) -> Flow[Any]:
        """Call it; see `PluginSession.call`. Without callbacks, those of the session are called."""
        name = self.definition.function.name
        return (yield from self.session.call(operation, name, arguments, callbacks or self.session.callbacks))


def spec_of(identifier: object, parameters: Mapping[str, Any]) -> PluginSpec:
    """Return which plugin to use, and how.

    Args:
        identifier: Its identifier.
        parameters: `plugin_config`, `working_directory` and `prefix`, each optional.

    Raises:
        LMStudioValueError: If one of them is invalid.
    """
    check_names(parameters, ("plugin_config", "working_directory", "prefix"))
    name = text_of(identifier, "plugin")
    config, prefix = parameters.get("plugin_config"), parameters.get("prefix", "")
    directory = optional_text(parameters.get("working_directory"), "working_directory")
    if config is not None and not (is_mapping(config) and all(isinstance(key, str) for key in config)):
        raise LMStudioValueError(f"plugin_config must be a dict of settings by their keys; got {config!r}")
    specifier = DirectConfig(type="direct", config=fields_of(config or {}))
    if directory is not None:
        specifier["workingDirectoryPath"] = directory
    if not isinstance(prefix, str):
        raise LMStudioValueError(f"prefix must be a string such as 'weather_'; got {prefix!r}")
    return PluginSpec(StartToolUseSession(pluginIdentifier=name, pluginConfigSpecifier=specifier), prefix)


class ToolSessions:
    """Sessions with several plugins, opened and closed together.

    Args:
        caller: Whose sessions they are.
        specs: The plugins.
        callbacks: What is called while a tool runs.
    """

    def __init__(self, caller: Caller, specs: Iterable[PluginSpec], callbacks: ToolCallbacks) -> None:
        self._sessions = [PluginSession(caller, spec, callbacks) for spec in specs]

    @property
    def plugins(self) -> list[str]:
        """The identifiers of the plugins."""
        return [session.spec.identifier for session in self._sessions]

    def start(self, operation: Operation) -> Flow[list[RemoteTool]]:
        """List the tools; see `list_tools`. If one session fails, or the caller is cancelled, all are closed."""
        try:
            return (yield from self.list_tools(operation))
        except BaseException:
            self.close()
            raise

    def list_tools(self, operation: Operation) -> Flow[list[RemoteTool]]:
        """Open the sessions, unless they are open, and list the tools of all.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name.
        """
        opened = [(session, session.open()) for session in self._sessions]
        tools: list[RemoteTool] = []
        for session, its_channel in opened:
            tools += yield from session.list_tools(operation, its_channel)
        _reject_clashes(tools)
        return tools

    def close(self) -> None:
        """Close the sessions. Calls that still run are aborted. Never waits."""
        for session in self._sessions:
            session.close()


class PluginSession:
    """The session with one plugin. It is opened again after a loss."""

    def __init__(self, caller: Caller, spec: PluginSpec, callbacks: ToolCallbacks) -> None:
        self.spec = spec
        self.callbacks = callbacks
        # Nobody waits for the channel itself, and it must outlive the event loop in which it was opened.
        self._caller = caller.with_waiters(ThreadWaiter)
        self._lock = RLock()
        self._channel: Call | None = None
        self._is_open = False

    def open(self) -> Call:
        """Open the session, unless it is open; return its channel."""
        with self._lock:
            self._is_open = True
            return self._open_channel()

    def _open_channel(self) -> Call:
        """Return the channel; open one if there is none, or if it was lost."""
        with self._lock:
            if not self._is_open:
                raise LMStudioRuntimeError(f"{self._label}: the session is closed; start it again to call its tools")
            channel = self._channel
            if channel is not None and not (channel.waiter.done or channel.waiter.is_lost):
                return channel
            # `load_timeout` limits the start. After that, only the calls have timeouts.
            operation = Operation(self._caller, {"timeout": None})
            self._channel = operation.start("plugins", _START, self.spec.request, label=self._label)
            if channel is not None and _has_begun(channel):
                self._warn_of_loss(channel)
            return self._channel

    def close(self) -> None:
        """Close the channel, so that the plugin does not stay loaded."""
        with self._lock:
            channel, self._channel, self._is_open = self._channel, None, False
        if channel is not None:
            channel.close(LMStudioCancelledError(f"{self._label}: the session was closed"))

    @property
    def _label(self) -> str:
        return f"Tools of {self.spec.identifier!r}"

    def _warn_of_loss(self, channel: Call) -> None:
        reason = channel.waiter.error or "it was closed by the server"
        warn_user(
            f"the session with the tools of {self.spec.identifier!r} was lost ({reason}); a new one is opened, and "
            "what the plugin remembered is gone",
            LMStudioToolSessionWarning,
        )

    def list_tools(self, operation: Operation, channel: Call) -> Flow[list[RemoteTool]]:
        """Return the tools, once the plugin has started."""
        with operation.start("plugins", LIST_TOOLS, None, label=self._label, channel=channel) as call:
            try:
                batch = yield call
            except LMStudioPluginError as error:
                if error.suggestion is None:
                    raise with_advice(error, NAME_A_PLUGIN) from error.__cause__
                raise
            if not batch:
                raise closed_early(self._label)
            with decode_errors(self._label):
                definitions = [Tool.from_dict(sanitized(each)) for each in batch[0]]
        return [RemoteTool(self, each, f"{self.spec.prefix}{each.function.name}") for each in definitions]

    def call(
        self, operation: Operation, name: str, arguments: Mapping[str, Any], callbacks: ToolCallbacks
    ) -> Flow[Any]:
        """Call a tool, once; return its result.

        A session that was lost before is opened again first, also if that turns out only now.

        Args:
            operation: Makes the call.
            name: The name of the tool in this session.
            arguments: Its checked arguments.
            callbacks: What is called while it runs.

        Raises:
            LMStudioPluginToolError: If the tool fails.
            LMStudioToolConnectionLostError: If the session ends while the tool runs.
            LMStudioRuntimeError: If the session was closed.
        """
        parameter, label = {"name": name, "arguments": arguments}, f"Tool {name!r} of {self.spec.identifier!r}"
        call = operation.start("plugins", CALL_TOOL, parameter, label=label, channel=self._open_channel())
        try:
            return (yield from self._result(call, name, callbacks))
        except (LMStudioConnectionLostError, LMStudioChannelClosedError):
            if call.was_sent:
                raise
        call = operation.start("plugins", CALL_TOOL, parameter, label=label, channel=self._open_channel())
        return (yield from self._result(call, name, callbacks))

    def _result(self, call: Call, name: str, callbacks: ToolCallbacks) -> Flow[Any]:
        """Wait for the result of a call; report what comes before it."""
        with call:
            while True:
                for packet in (yield from self._packets(call, name)):
                    match packet["type"]:
                        case "toolCallStatus":
                            report = self._report(name, packet["statusText"])
                            yield from call_back("on_status", callbacks.on_status, report)
                        case "toolCallWarn":
                            report = self._report(name, packet["warnText"])
                            yield from call_back("on_warning", callbacks.on_warning, report)
                        case "toolCallComplete":
                            with decode_errors(call.exchange.label):
                                return sanitized(packet.get("result"))
                        case _:
                            raise self._failure(name, packet)

    def _report(self, name: str, text: str) -> ToolReport:
        return ToolReport(self.spec.identifier, name, without_surrogates(text))

    def _packets(self, call: Call, name: str) -> Flow[list[Any]]:
        """Return the next packets of a call, at least one."""
        try:
            batch = yield call
            if not batch:
                raise closed_early(call.exchange.label)
        except (LMStudioTimeoutError, LMStudioCancelledError):
            raise
        except LMStudioError as error:
            if not call.was_sent:
                raise
            raise LMStudioToolConnectionLostError(
                f"the connection was lost while the tool {name!r} of {self.spec.identifier!r} ran, so what it has done "
                f"is unknown, and it is not called again: {error}",
                plugin=self.spec.identifier,
                tool=name,
            ) from error
        return batch

    def _failure(self, name: str, packet: Mapping[str, Any]) -> LMStudioPluginToolError:
        """Return the error of a tool that has failed."""
        error = to_exception(error_object(packet.get("error")), f"Tool {name!r}", kind=LMStudioPluginToolError)
        assert isinstance(error, LMStudioPluginToolError), "it was asked for"
        error.plugin, error.tool = self.spec.identifier, name
        return error


def _has_begun(channel: Call) -> bool:
    """Whether the plugin of a session that is over had started."""
    tool_session = channel.exchange.tool_session
    return tool_session is not None and tool_session.definitions is not None


def _reject_clashes(tools: Sequence[RemoteTool]) -> None:
    """Reject two tools of one name: a model could not tell them apart."""
    known: dict[str, RemoteTool] = {}
    for tool in tools:
        other = known.setdefault(tool.name, tool)
        if other is not tool:
            ours, theirs = (each.session.spec.identifier for each in (other, tool))
            raise LMStudioValueError(
                f"{ours!r} and {theirs!r} both have a tool {tool.name!r}; give one of them a prefix, for example "
                f"prefix={theirs.rpartition('/')[2] + '_'!r}"
            )
