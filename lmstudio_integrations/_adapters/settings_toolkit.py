"""The fields that the toolkits of all frameworks share, besides those of the server; and the calls of their tools.

A toolkit is configuration, and what it has open is in its `ToolRuntime`, which is neither copied nor pickled: one
session with its plugins, which its tools share, in threads and in coroutines. It is closed with the toolkit, or once
neither the toolkit nor any of its tools is in use.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

from pydantic import Field, field_serializer
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import Unpack

from lmstudio_integrations._adapters.request_model import KEEP_IDLE, BaseRuntime, places_of
from lmstudio_integrations._adapters.settings import ServerSettings, timeouts_of
from lmstudio_integrations._adapters.settings_types import (
    DICT_SCHEMA,
    TIMEOUTS_DESCRIPTION,
    DictValidator,
    reads_timeouts,
)
from lmstudio_integrations._support.secrets import HIDDEN, holds_secret, is_secret_name, redact_members
from lmstudio_integrations._support.typeguards import is_list, is_mapping
from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, ThreadMailbox
from lmstudio_integrations.client.plugins.base import ToolCallParameters, calling, is_in_use, starting
from lmstudio_integrations.client.plugins.sync import PluginsNamespace, PluginTool, ToolUseSession
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioValueError
from lmstudio_integrations.types.config_dicts import TimeoutParameters
from lmstudio_integrations.types.plugins import ToolContent, ToolReport


class SessionSpec(NamedTuple):
    """Which plugins of which server.

    Attributes:
        server: The server.
        plugin: One plugin, or several.
        parameters: How they run.
    """

    server: Target
    plugin: Any
    parameters: Mapping[str, Any]


class ToolRuntime(BaseRuntime):
    """The session of one toolkit."""

    def __init__(self, dropped_secrets: frozenset[str] = frozenset()) -> None:
        super().__init__(dropped_secrets)
        self._current: dict[None, tuple[SessionSpec, Mapping[str, Any], ToolUseSession]] = {}
        """The session with what it was made of, if there is one. A dict, whose changes are atomic."""

    def session(self, spec: SessionSpec, timeouts: Mapping[str, Any]) -> ToolUseSession:
        """Return the session with plugins, which may not be open yet; the one with others is closed.

        Args:
            spec: The plugins.
            timeouts: The timeouts of a session that is not in use yet.

        Raises:
            LMStudioValueError: If a setting is invalid.
        """
        current = self._current.get(None)
        if current is not None:
            own_spec, own_timeouts, session = current
            # One that was only made is opened by the thread that has asked for it.
            if own_spec == spec and (own_timeouts == timeouts or is_in_use(session)):
                return session
        context = ClientContext(spec.server, {**TIMEOUTS, **timeouts}, ThreadMailbox, KEEP_IDLE)
        made = PluginsNamespace(context).tools(spec.plugin, **spec.parameters)
        if current is not None:
            self.close()
        kept_spec, _, kept = self._current.setdefault(None, (spec, dict(timeouts), made))
        return kept if kept_spec == spec else made

    def close(self) -> None:
        """Close the session. The toolkit opens another one when it is asked for its tools."""
        current = self._current.pop(None, None)
        if current is not None:
            current[2].close()


OnReport = Callable[[ToolReport], Any]

TOOL_TIMEOUTS = ("connect_timeout", "load_timeout", "idle_timeout", "total_timeout", "keepalive")
"""The timeouts of calls that are not those of a model."""

_Timeouts = Annotated[
    TimeoutParameters | None,
    DictValidator(reads_timeouts(TOOL_TIMEOUTS)),
    DICT_SCHEMA,
    Field(
        description=TIMEOUTS_DESCRIPTION.format(
            "`connect_timeout` (5: to connect, or for a ping), `load_timeout` (300: while a plugin starts), "
            "`idle_timeout` (60: for a server that no longer responds to pings), `total_timeout` (none: for a call of "
            "a tool, which is then aborted) and `keepalive` (20: of silence before a ping)"
        )
        + " None by default."
    ),
]

_CONFIGS = ("plugin", "plugin_config")
"""Fields that have settings of plugins."""

_PLUGIN = ("prefix", "plugin_config", "working_directory")
"""Fields that say how a plugin runs."""


class ToolkitSettings(ServerSettings):
    """Which plugins of which server."""

    plugin: str | Mapping[str, Mapping[str, Any] | None] = Field(
        kw_only=False,  # for type checkers: it is the only positional parameter
        description="Identifier of the plugin, for example `owner/name`; that of an MCP server in `mcp.json` is `mcp/` "
        "and its name in kebab case. Or a dict of several, each with a `prefix`, a `plugin_config` and a "
        "`working_directory` of its own, all optional. It has no default.",
    )

    prefix: str = Field(
        default="",
        description="What the names of the tools begin with, for example `weather_`. Nothing by default. Two tools of "
        "one name need different prefixes.",
    )

    plugin_config: Mapping[str, Any] | None = Field(
        default=None,
        exclude=True,
        description="The plugin's settings, by their keys. None by default; MCP servers have none. They may contain "
        "secrets, so `repr` and dumps omit them. Pickles omit the values of secrets, such as `api_key`; assign them "
        "again in the other process.",
    )

    working_directory: str | None = Field(
        default=None,
        description="The directory, on the machine of LM Studio, in which the plugin works. None by default.",
    )

    on_status: SkipJsonSchema[OnReport | None] = Field(
        default=None,
        exclude=True,
        description="Called with a `ToolReport` when a tool says what it is doing, in the thread or task that waits; "
        "async functions in async calls only. None by default.",
    )

    on_warning: SkipJsonSchema[OnReport | None] = Field(
        default=None,
        exclude=True,
        description="Called with a `ToolReport` when a tool has met a problem that it could solve; see `on_status`. "
        "None by default.",
    )

    host: str | Sequence[str | tuple[str, str]] | None = Field(
        default=None,
        description="Address of the server: `host:port` or a URL, with or without `/v1`. If unset, `LMSTUDIO_HOST` "
        "applies, else LM Studio on this machine. Several servers need several objects. `base_url` is an alias.",
    )

    timeouts: _Timeouts = None

    @field_serializer("plugin")
    def _without_settings(self, plugin: str | Mapping[str, Mapping[str, Any] | None]) -> Any:
        """Leave out the settings of plugins, which may contain secrets."""
        if isinstance(plugin, str):
            return plugin
        return {
            name: {key: value for key, value in (own or {}).items() if key != "plugin_config"}
            for name, own in plugin.items()
        }

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, plugin: str | Mapping[str, Mapping[str, Any] | None] | None = None, **settings: Any) -> None:
            if plugin is None:
                name = type(self).__name__
                raise LMStudioValueError(f"{name} needs the identifier of a plugin; write {name}('owner/name')")
            super().__init__(plugin=plugin, **settings)

    @cached_property
    def _runtime(self) -> ToolRuntime:
        """The session of this object; a copy has its own."""
        shared: ToolRuntime = vars(self).setdefault("_runtime", ToolRuntime())  # atomic: all threads get the same one
        return shared

    def _session(self) -> ToolUseSession:
        """Return the session, which may not be open yet.

        Raises:
            LMStudioAuthenticationError: If a secret is missing that was left out when this object was pickled.
            LMStudioValueError: If a setting is invalid.
        """
        values = vars(self)
        self._check_secrets(values)
        (server, device), *others = places_of(values)
        devices = [each for each in (device, *(each for _, each in others)) if each is not None]
        if devices:
            raise LMStudioValueError(f"the tools of a plugin are on no device of a server; got {devices[0]!r} in host")
        if others:
            raise LMStudioValueError(
                f"the tools of a plugin are those of one server; got {len(others) + 1} hosts; make one "
                f"{type(self).__name__} for each, and give host a single address"
            )
        parameters = {name: values[name] for name in _PLUGIN}
        return self._runtime.session(SessionSpec(server, values["plugin"], parameters), timeouts_of(values))

    def _open(self) -> list["ToolkitTool"]:
        """Open the session, unless it is open; return the tools."""
        session = self._session()
        run(starting(session, ThreadMailbox))
        return [ToolkitTool(self, each) for each in session.tools]

    async def _aopen(self) -> list["ToolkitTool"]:
        session = self._session()
        await arun(starting(session, LoopMailbox))
        return [ToolkitTool(self, each) for each in session.tools]

    def close(self) -> None:
        """Close the session, so that the plugins do not stay loaded. Calls that still run are aborted.

        The tools cannot be called any more; the object opens another session when it is asked for tools again.
        """
        super().close()

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        fields = state["__dict__"]
        return {**state, "__dict__": {**fields, **{name: _without_secret_values(fields[name]) for name in _CONFIGS}}}

    def _check_secrets(self, values: Mapping[str, Any]) -> None:
        super()._check_secrets(values)
        for name in _CONFIGS:
            if _has_hidden(values[name]):
                raise LMStudioAuthenticationError(
                    f"the secrets in {name} were left out when this {type(self).__name__} was pickled; assign {name} "
                    "again"
                )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what `repr` shows. The settings of plugins may contain secrets."""
        for name, value in super().__repr_args__():
            yield name, list(value) if name == "plugin" and is_mapping(value) else value


def _has_hidden(value: object) -> bool:
    """Whether a pickle has left out a secret of a value."""
    if is_mapping(value):
        return any(map(_has_hidden, value.values()))
    return any(map(_has_hidden, value)) if is_list(value) else value == HIDDEN


@dataclass(frozen=True, repr=False)
class ToolkitTool:
    """A tool of a toolkit, for threads and for coroutines. It keeps the session open.

    Attributes:
        toolkit: Has the timeouts and the callbacks of each call.
        definition: Its name, description and plugin, and the check of its arguments.
    """

    toolkit: ToolkitSettings
    definition: PluginTool

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        parameters = self.definition.parameters
        return {**parameters, "properties": parameters.get("properties", {})}

    def call(self, arguments: Mapping[str, Any], **parameters: Unpack[ToolCallParameters]) -> Any:
        """Call it in this thread; return its result, a JSON value.

        Args:
            arguments: Its arguments.
            parameters: The callbacks, if they are not those of the toolkit.

        Raises:
            LMStudioValueError: If the arguments do not fit.
            LMStudioPluginToolError: If the tool fails, also if it says so in its result.
            LMStudioToolConnectionLostError: If the session ends meanwhile; the tool is not called again.
            LMStudioTimeoutError: If it takes longer than `total_timeout`; the call is aborted.
            LMStudioRuntimeError: If the toolkit was closed.
        """
        return self._checked(run(calling(self.definition, arguments, self._parameters(parameters), ThreadMailbox)))

    async def acall(self, arguments: Mapping[str, Any], **parameters: Unpack[ToolCallParameters]) -> Any:
        """Call it in this task; see `call`."""
        called = calling(self.definition, arguments, self._parameters(parameters), LoopMailbox)
        return self._checked(await arun(called))

    def _parameters(self, given: ToolCallParameters) -> ToolCallParameters:
        """Return how to call the tool: as the toolkit is set now."""
        callbacks: ToolCallParameters = {"on_status": self.toolkit.on_status, "on_warning": self.toolkit.on_warning}
        return cast("ToolCallParameters", {**timeouts_of(vars(self.toolkit)), **callbacks, **given})

    def _checked(self, result: Any) -> Any:
        """Return a result, unless it says that the tool has failed, as those of MCP servers may."""
        ToolContent.of(result).checked(self.definition.plugin, self.definition.name)
        return result


def _without_secret_values(value: object, name: str = "") -> object:
    """Return a JSON value with `HIDDEN` in place of each secret, by the names of its members or by its shape.

    Args:
        value: The value.
        name: Its name.
    """
    if is_mapping(value):
        secret = is_secret_name(name)
        return {key: _without_secret_values(each, name if secret else str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secret_values(each, name) for each in cast("Collection[object]", value)]
    has_members = isinstance(value, str) and redact_members(value) != value
    return HIDDEN if has_members or holds_secret(value, name) else value
