"""What both clients share of `client.plugins`: arguments, tools and sessions.

They use the flows of `sessions.py`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypedDict

from typing_extensions import TypeVar

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow, arun
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox
from lmstudio_integrations.client.plugins.sessions import OnReport, PluginSessions, RemoteTool, ToolCallbacks, spec_of
from lmstudio_integrations.client.support.arguments import check_names, checked_timeouts
from lmstudio_integrations.client.transport.base_namespace import BaseNamespace
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioToolConnectionLostError,
    LMStudioValueError,
)
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from lmstudio_integrations.types.config_dicts import TimeoutParameters
from lmstudio_integrations.types.functions import ToolFunctionDef
from lmstudio_integrations.types.plugins import ToolContent

logger: logging.Logger = logging.getLogger(__name__)


class PluginParameters(TypedDict, total=False):
    """How a plugin with tools runs.

    Attributes:
        plugin_config: The plugin's settings, by their keys. MCP servers have none: `mcp.json` configures them.
        working_directory: The directory, on the machine of LM Studio, in which the plugin works.
        prefix: What the names of its tools begin with, for example `weather_`. Nothing by default.
    """

    plugin_config: Mapping[str, Any] | None
    working_directory: str | None
    prefix: str


class ToolCallParameters(TimeoutParameters, total=False):
    """The keyword arguments of the method `call` of a tool. What is not given is as in the session.

    Attributes:
        on_status: Called with a `ToolReport` when the tool says what it is doing.
        on_warning: Called with a `ToolReport` when the tool has met a problem that it could solve.
    """

    on_status: OnReport | None
    on_warning: OnReport | None


class ToolSessionParameters(PluginParameters, ToolCallParameters, total=False):
    """The keyword arguments of `tools`. `total_timeout` limits the start and each call, `load_timeout` the start."""


Plugins: TypeAlias = str | Mapping[str, PluginParameters]
"""One plugin, or several, each with how it runs."""

ToolT = TypeVar("ToolT", bound="BasePluginTool")


@dataclass(frozen=True, repr=False)
class BasePluginTool(ToolFunctionDef):
    """A tool of a plugin or an MCP server. `act` accepts it.

    Attributes:
        plugin: The identifier of the plugin.
    """

    # What the tool has done is unknown then, and a model that gets a text would call it again.
    raised_errors: ClassVar[tuple[type[Exception], ...]] = LMStudioToolConnectionLostError, LMStudioTimeoutError
    plugin: str
    _remote: RemoteTool = field(repr=False, compare=False)
    _context: ClientContext = field(repr=False, compare=False)

    @classmethod
    def _of(cls, remote: RemoteTool, context: ClientContext) -> Self:
        """Return a tool of an open session."""
        function, plugin = remote.definition.function, remote.session.spec.identifier

        async def implementation(**arguments: Any) -> ToolContent:
            # Async for both clients: where `act` ends early, it cancels what is async, and that aborts the call.
            operation = Operation(context.with_mailboxes(LoopMailbox))
            result = await arun(remote.session.call(operation, remote, arguments))
            return ToolContent.of(result).checked(plugin, remote.name)

        def with_parameters(parameters: Mapping[str, Any]) -> Any:
            described = {**parameters, "type": "object"}
            return cls(remote.name, function.description or "", described, implementation, plugin, remote, context)

        try:
            tool: Self = with_parameters(function.parameters or {})
        except LMStudioValueError as error:
            logger.warning("the parameters of the tool %r of %r are not used: %s", remote.name, plugin, error)
            tool = with_parameters({})
        return tool

    @cached_property
    def _argument_schema(self) -> ArgumentSchema:
        try:
            return ArgumentSchema(self.parameters, self.name)
        except LMStudioValueError as error:  # such as a pattern that Python does not know; the plugin may
            logger.warning("the arguments of the tool %r of %r are not checked: %s", self.name, self.plugin, error)
            return ArgumentSchema({}, self.name)

    def _calling(
        self,
        arguments: Mapping[str, Any],
        parameters: ToolCallParameters,
        mailbox_type: type[Mailbox] | None = None,
    ) -> Flow[Any]:
        """Check the arguments and call the tool: a flow, which may wait in another way than those of its client."""
        context, session = _waiting(self._context, mailbox_type), self._remote.session
        check_names(parameters, ToolCallParameters.__annotations__, async_callbacks=context.is_async)
        operation = Operation(context, checked_timeouts(parameters))
        callbacks = _with_callbacks(session.callbacks, parameters)
        return (yield from session.call(operation, self._remote, self.check(arguments), callbacks))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self.plugin!r}>"


def _waiting(context: ClientContext, mailbox_type: type[Mailbox] | None) -> ClientContext:
    return context if mailbox_type is None else context.with_mailboxes(mailbox_type)


def _with_callbacks(callbacks: ToolCallbacks, parameters: ToolCallParameters) -> ToolCallbacks:
    return ToolCallbacks(
        parameters.get("on_status", callbacks.on_status), parameters.get("on_warning", callbacks.on_warning)
    )


class BaseToolUseSession(Generic[ToolT]):
    """Tools of plugins, from the start of the session to its end.

    A session that was lost is opened again by the next call, with an `LMStudioToolSessionWarning`. All threads, tasks
    and event loops may share a session.
    """

    _tool: ClassVar[type[Any]]

    def __init__(self, context: ClientContext, sessions: PluginSessions) -> None:
        self._context: ClientContext = context
        self._plugin_sessions: PluginSessions = sessions
        """The sessions with the plugins. Their methods are the flows that those of this object run."""
        self._tools: list[ToolT] | None = None

    @property
    def tools(self) -> list[ToolT]:
        """The tools.

        Raises:
            LMStudioRuntimeError: If the session is not open.
        """
        if self._tools is None or not self._plugin_sessions.is_open:
            raise LMStudioRuntimeError(f"{self!r} is not open; call start(), or use it in a with block")
        return list(self._tools)

    def _starting(self, mailbox_type: type[Mailbox] | None = None) -> Flow[None]:
        """Start the plugins and list their tools: a flow, which may wait in another way than those of its client."""
        operation = Operation(_waiting(self._context, mailbox_type))
        remote_tools = yield from self._plugin_sessions.start(operation)
        self._tools = [self._tool._of(each, self._context) for each in remote_tools]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module

    def _close(self) -> None:
        self._tools = None
        self._plugin_sessions.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._plugin_sessions.plugins))})"


def starting(session: BaseToolUseSession[Any], mailbox_type: type[Mailbox]) -> Flow[None]:
    """Start the plugins of a session and list their tools; wait for it as the type of mailbox says."""
    yield from session._starting(mailbox_type)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def calling(
    tool: BasePluginTool, arguments: Mapping[str, Any], parameters: ToolCallParameters, mailbox_type: type[Mailbox]
) -> Flow[Any]:
    """Check the arguments of a tool and call it; wait for it as the type of mailbox says."""
    return (yield from tool._calling(arguments, parameters, mailbox_type))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


def is_in_use(session: BaseToolUseSession[Any]) -> bool:
    """Whether a session is open, or starts."""
    return session._plugin_sessions.is_in_use  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module


class BasePluginsNamespace(BaseNamespace):
    """Plugins and MCP servers."""

    def _sessions(self, plugins: Plugins, parameters: ToolSessionParameters) -> tuple[ClientContext, PluginSessions]:
        """Return the sessions with plugins, and who calls their tools."""
        check_names(parameters, ToolSessionParameters.__annotations__, async_callbacks=self._context.is_async)
        context = self._context.with_timeouts(checked_timeouts(parameters))
        common = {name: value for name, value in parameters.items() if name in PluginParameters.__annotations__}
        if isinstance(plugins, str):
            specs = [spec_of(plugins, common)]
        elif is_object(plugins) and plugins:
            specs = [spec_of(name, own, common) for name, own in plugins.items()]
        else:
            raise LMStudioValueError(
                "plugin must be an identifier such as 'mcp/weather', or a dict of several; got "
                f"{'an empty dict' if is_object(plugins) else type(plugins).__name__}"
            )
        return context, PluginSessions(context, specs, _with_callbacks(ToolCallbacks(), parameters))
