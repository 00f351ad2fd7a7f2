"""Sessions with the tools of plugins (docs/protocol.md#tool-sessions): open them, list the tools, call them.

`base.py` has the sessions as users see them. Threads and coroutines of any event loop may share one: each call
waits in its own way. A call is never repeated, because tools have effects.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from types import MappingProxyType
from typing import Any

from lmstudio_integrations._support.suggestions import SEE_LOG
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.client.concurrency.flows import Flow, call_back
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.client.support.arguments import check_names, optional_text, text_of
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import OpenRequest, Operation, decode_errors, read_each
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
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
from lmstudio_integrations.protocol.envelope import sanitize, without_surrogates
from lmstudio_integrations.protocol.errors import add_suggestion, error_object, to_exception
from lmstudio_integrations.protocol.exchange import CALL_TOOL, LIST_TOOLS, ToolSession
from lmstudio_integrations.protocol.kv_config import fields_of
from lmstudio_integrations.protocol.requests import DirectConfig, StartToolUseSession, kebab_case
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.plugins import ToolReport

OnReport = Callable[[ToolReport], Any]

_NAME_A_PLUGIN = (
    "check the identifier: an MCP server of mcp.json has `mcp/` and its name in kebab case; if LM Studio requires a "
    f"token, check what that is allowed to do; {SEE_LOG}"
)
"""What helps if a plugin cannot be started."""

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
    """What is called while a tool runs, in the thread or task that waits for it; in `act`, in that of the tool.

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


def spec_of(identifier: object, parameters: object, common: Mapping[str, Any] = MappingProxyType({})) -> PluginSpec:
    """Return which plugin to use, and how.

    Args:
        identifier: Its identifier.
        parameters: `plugin_config`, `working_directory` and `prefix`, each optional; or `None`.
        common: The same, for what is not in `parameters`.

    Raises:
        LMStudioValueError: If one of them is invalid.
    """
    name = text_of(identifier, "plugin")
    if parameters is not None and not is_mapping(parameters):
        raise LMStudioValueError(f"the parameters of {name!r} must be a dict; got {type(parameters).__name__}")
    merged = {**common, **(parameters or {})}
    check_names(merged, ("plugin_config", "working_directory", "prefix"))
    config, prefix = merged.get("plugin_config"), merged.get("prefix", "")
    directory = optional_text(merged.get("working_directory"), "working_directory")
    if config is not None and not (is_mapping(config) and all(isinstance(key, str) for key in config)):
        # Without the value, which may have secrets.
        raise LMStudioValueError(f"plugin_config must be a dict of settings by their keys; got {type(config).__name__}")
    specifier = DirectConfig(type="direct", config=fields_of(config or {}))
    if directory is not None:
        specifier["workingDirectoryPath"] = directory
    if not isinstance(prefix, str):
        raise LMStudioValueError(f"prefix must be a string such as 'weather_'; got {prefix!r}")
    return PluginSpec(StartToolUseSession(pluginIdentifier=name, pluginConfigSpecifier=specifier), prefix)


class PluginSessions:
    """Sessions with several plugins, opened and closed together.

    Args:
        context: Whose sessions they are.
        specs: The plugins.
        callbacks: What is called while a tool runs.

    Attributes:
        is_open: Whether `start` has succeeded, and `close` was not called since.
    """

    def __init__(self, context: ClientContext, specs: Iterable[PluginSpec], callbacks: ToolCallbacks) -> None:
        self._context = context
        self._sessions = [PluginSession(context, spec, callbacks) for spec in specs]
        self._starts: set[object] = set()
        """The calls of `start` that run; several callers may share the sessions."""
        self.is_open: bool = False

    @property
    def is_in_use(self) -> bool:
        """Whether they are open, or a caller opens them."""
        return self.is_open or bool(self._starts)

    @property
    def plugins(self) -> list[str]:
        """The identifiers of the plugins."""
        return [session.spec.identifier for session in self._sessions]

    def start(self, operation: Operation) -> Flow[list[RemoteTool]]:
        """Open the sessions, unless they are open, and list the tools of all.

        If one cannot be opened, or the caller is cancelled, all are closed, unless another caller has opened them.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name.
        """
        start = object()
        with self._context.shared(_Opening).lock:
            self._starts.add(start)
        try:
            opened = [(session, session.open()) for session in self._sessions]
            tools: list[RemoteTool] = []
            for session, its_channel in opened:
                tools += yield from session.list_tools(operation, its_channel)
            _reject_clashes(tools)
            self.is_open = True
            return tools
        finally:
            with self._context.shared(_Opening).lock:  # or another caller might open them between the next two lines
                self._starts.discard(start)
                if not self.is_in_use:
                    self.close()

    def close(self) -> None:
        """Close the sessions. Calls that still run are aborted. Never waits."""
        self.is_open = False
        for session in self._sessions:
            session.close()


class _Opening:
    """Held while a session is opened or closed. Shared by a server's sessions; a forked process has another one."""

    def __init__(self) -> None:
        self.lock = RLock()  # a signal handler may call a tool while its thread holds it


class PluginSession:
    """The session with one plugin. It is opened again after a loss."""

    def __init__(self, context: ClientContext, spec: PluginSpec, callbacks: ToolCallbacks) -> None:
        self.spec = spec
        self.callbacks = callbacks
        # Nobody waits for the channel itself, and it must outlive the event loop in which it was opened.
        self._context = context.with_mailboxes(ThreadMailbox)
        self._channel: OpenRequest | None = None
        self._is_open = False

    def open(self) -> OpenRequest:
        """Open the session, unless it is open; return its channel."""
        self._is_open = True
        return self._open_channel()

    def _open_channel(self) -> OpenRequest:
        """Return the channel; open one if there is none, or if it was lost."""
        with self._context.shared(_Opening).lock:
            if not self._is_open:
                raise LMStudioRuntimeError(f"{self._label}: the session was closed; get the tools of a new one")
            lost = self._channel
            if lost is not None and not (lost.mailbox.done or lost.mailbox.is_lost):
                return lost
            # `load_timeout` limits the start. After that, only the calls have timeouts.
            operation = Operation(self._context, {"total_timeout": None})
            (opened,) = operation.start("plugins", _START, self.spec.request, label=self._label)
            self._channel = opened
        if lost is not None and _has_begun(lost):
            self._warn_of_loss(lost)
        return opened

    def close(self) -> None:
        """Close the channel, so that the plugin does not stay loaded."""
        with self._context.shared(_Opening).lock:
            channel, self._channel, self._is_open = self._channel, None, False
        if channel is not None:
            channel.close(LMStudioCancelledError(f"{self._label}: the session was closed"))

    @property
    def _label(self) -> str:
        return f"Tools of {self.spec.identifier!r}"

    def _warn_of_loss(self, lost: OpenRequest) -> None:
        reason = "the process was forked" if lost.mailbox.is_lost else lost.mailbox.error or "the server has closed it"
        warn_user(
            f"the session with the tools of {self.spec.identifier!r} was lost ({reason}); a new one is opened, and "
            "what the plugin remembered is gone",
            LMStudioToolSessionWarning,
        )

    def _was_lost(self, its_channel: OpenRequest) -> bool:
        """Whether the session had begun and is over, and was not closed, so that another one may take its place."""
        return self._is_open and its_channel.mailbox.done and _has_begun(its_channel)

    def list_tools(self, operation: Operation, its_channel: OpenRequest) -> Flow[list[RemoteTool]]:
        """Return the tools, once the plugin has started; open the session again if that turns out to be lost."""
        try:
            return (yield from self._list_tools(operation, its_channel))
        except LMStudioError:
            if not self._was_lost(its_channel):
                raise
        return (yield from self._list_tools(operation, self._open_channel()))

    def _list_tools(self, operation: Operation, its_channel: OpenRequest) -> Flow[list[RemoteTool]]:
        with operation.start("plugins", LIST_TOOLS, None, label=self._label, channel=its_channel)[0] as request:
            try:
                (definitions,) = yield request
            except LMStudioPluginError as error:
                spelled = kebab_case(self.spec.identifier)
                if spelled is not None:
                    raise add_suggestion(error, f"did you mean {spelled!r}?") from error.__cause__
                if error.suggestion is None:
                    raise add_suggestion(error, _NAME_A_PLUGIN) from error.__cause__
                raise
            with decode_errors(self._label):
                tools = read_each(definitions, lambda each: Tool.from_dict(sanitize(each)), self._label)
        return [RemoteTool(self, each, f"{self.spec.prefix}{each.function.name}") for each in tools]

    def call(
        self,
        operation: Operation,
        tool: RemoteTool,
        arguments: Mapping[str, Any],
        callbacks: ToolCallbacks | None = None,
    ) -> Flow[Any]:
        """Call a tool, once; return its result.

        A session that was lost is opened again first, also if that turns out only now.

        Args:
            operation: Makes the call.
            tool: The tool.
            arguments: Its checked arguments.
            callbacks: What is called while it runs, if it is not what the session calls.

        Raises:
            LMStudioPluginToolError: If the tool fails.
            LMStudioToolConnectionLostError: If the session ends while the tool runs.
            LMStudioRuntimeError: If the session was closed.
        """
        callbacks = callbacks or self.callbacks
        parameter = {"name": tool.definition.function.name, "arguments": arguments}
        label, its_channel = f"Tool {tool.name!r} of {self.spec.identifier!r}", self._open_channel()
        (request,) = operation.start("plugins", CALL_TOOL, parameter, label=label, channel=its_channel)
        try:
            return (yield from self._result(request, tool, callbacks))
        except LMStudioError:
            if request.was_sent or not self._was_lost(its_channel):
                raise
        (request,) = operation.start("plugins", CALL_TOOL, parameter, label=label, channel=self._open_channel())
        return (yield from self._result(request, tool, callbacks))

    def _result(self, request: OpenRequest, tool: RemoteTool, callbacks: ToolCallbacks) -> Flow[Any]:
        """Wait for the result of a call; report what comes before it."""
        with request:
            while True:
                for packet in (yield from self._packets(request, tool)):
                    match packet["type"]:
                        case "toolCallStatus":
                            report = self._report(tool, packet["statusText"])
                            yield from call_back("on_status", callbacks.on_status, report)
                        case "toolCallWarn":
                            report = self._report(tool, packet["warnText"])
                            yield from call_back("on_warning", callbacks.on_warning, report)
                        case "toolCallComplete":
                            with decode_errors(request.exchange.label):
                                return sanitize(packet.get("result"))
                        case _:
                            raise self._failure(tool, packet)

    def _report(self, tool: RemoteTool, text: str) -> ToolReport:
        return ToolReport(self.spec.identifier, tool.name, without_surrogates(text))

    def _packets(self, request: OpenRequest, tool: RemoteTool) -> Flow[list[Any]]:
        """Return the next packets of a call, at least one."""
        try:
            return (yield request)
        except (LMStudioTimeoutError, LMStudioCancelledError):
            raise
        except LMStudioError as error:
            if not request.was_sent:
                raise
            # Without its advice, such as to make the call again.
            reason = str(error).partition("; ")[0].partition("\n")[0]
            raise LMStudioToolConnectionLostError(
                f"the session ended while the tool {tool.name!r} of {self.spec.identifier!r} ran, so what it has done "
                f"is unknown, and it is not called again: {reason}",
                plugin=self.spec.identifier,
                tool=tool.name,
            ) from error

    def _failure(self, tool: RemoteTool, packet: Mapping[str, Any]) -> LMStudioPluginToolError:
        error = to_exception(error_object(packet.get("error")), f"Tool {tool.name!r}", kind=LMStudioPluginToolError)
        assert isinstance(error, LMStudioPluginToolError), "it was asked for"
        error.plugin, error.tool = self.spec.identifier, tool.name
        return error


def _has_begun(its_channel: OpenRequest) -> bool:
    """Whether the plugin of a session that is over had started."""
    exchange = its_channel.exchange
    return isinstance(exchange, ToolSession) and exchange.definitions is not None


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
