"""The fields that the adapters of all models share, besides those of the server; and the life cycle of an adapter."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, Field

from lmstudio_integrations._adapters.runtime import AdapterNames, Calling, ModelSpec, Runtime, UsedModel
from lmstudio_integrations._adapters.server_settings import ServerSettings
from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.types._numbers import Count, Natural, Seconds
from lmstudio_integrations.types.config import (
    LOAD_CONFIGS,
    Evict,
    LoadPolicy,
    LoadSettings,
    ModelKind,
    OnConfigMismatch,
)
from lmstudio_integrations.types.hosts import HostStatus
from lmstudio_integrations.types.timeouts import ModelTimeouts


class _ModelSettings(BaseModel):
    """Which model. A base of its own, because its fields come first, in signatures and in `repr`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    model: str | None = Field(
        default=None,
        description="Key or identifier of the model, as `lmsi ls` lists it. If unset, the server "
        "chooses a loaded model. "
        "`model_name` is an alias.",
    )


class ConnectionSettings(ModelTimeouts, ServerSettings, _ModelSettings):
    """Which server and which model."""

    _kind: ClassVar[ModelKind]
    _adapters: ClassVar[AdapterNames]
    """The adapter of this framework for models of the other kind."""

    load_policy: LoadPolicy = Field(
        default="get_or_load",
        description="How the model is found or loaded. `get_or_load`, the default of language models, uses a loaded "
        "instance or loads one just in time, which other just-in-time loads evict while Auto-Evict is on. `explicit`, "
        "the default of embedding models, does the same, but no just-in-time load evicts what it loads. `fit` is like "
        "`explicit`, but first it evicts what must go for the model, the least recently used first. `require_loaded` "
        "never loads. `new_instance` loads an instance for this object alone; each copy loads its own, so prefer "
        "`bind` to APIs that copy the object, such as `configurable_fields`.",
    )

    evict: Evict = Field(
        default="own",
        description="What `fit` may evict, if it is idle: what has a TTL (`own`, the default), or also what was "
        "loaded without one (`any`).",
    )

    device: str | None = Field(
        default=None,
        description="The machine that the model is used on: `local` for the server's own, or the name or the "
        "identifier of a linked device (LM Link). If unset, the server chooses: its preferred device, then its own "
        "machine, then any other that has the model. Under `fit`, that is `local`.",
    )

    ttl: Seconds | None = Field(
        default=None,
        description="Unload the model after this many idle seconds, if this object loads it. If unset, the server's "
        "default applies under `get_or_load`, 3,600 under `explicit`, and no limit under `new_instance`. For no limit "
        "under `explicit`, set `math.inf`.",
    )

    unload_on_close: bool = Field(
        default=False,
        description="Whether `close` also unloads the models that this object loaded. The default is `False`.",
    )

    context_length: Count | None = Field(
        default=None,
        description="Context length to load the model with, in tokens. Overrides the one in `load_config`. If both "
        "are unset, the server's default applies.",
    )

    on_config_mismatch: OnConfigMismatch = Field(
        default="warn",
        description="What to do if the loaded model's settings differ from `load_config`: `warn` (the default), "
        "`raise` or `ignore`.",
    )

    on_load_progress: Callable[[float], Any] | None = Field(
        default=None,
        exclude=True,
        description="Called with the progress of a load, from 0.0 to 1.0, in the thread or task that waits. None by "
        "default.",
    )

    show_progress: ShowProgress = Field(
        default="auto",
        description="Whether to show progress bars with tqdm, on a terminal or in a notebook. By default, `auto`, a "
        "load of more than two seconds shows a line on a terminal, unless there is an `on_load_progress`.",
    )

    max_retries: Natural = Field(
        default=0,
        description="How often to retry a call if no server responds, or if the connection is lost before the caller "
        "has received any of the response. The default is 0. If the model was unloaded, the call is retried up to "
        "three times anyway.",
    )

    @cached_property
    def _runtime(self) -> Runtime:
        """The clients of this object, made with its first call; a private attribute takes time in each constructor."""
        shared: Runtime = vars(self).setdefault("_runtime", Runtime())  # atomic: all threads get the same one
        return shared

    if not TYPE_CHECKING:  # type checkers read the fields

        def __new__(cls, *positional: object, **_settings: object) -> Self:
            """Reject positional arguments. Not in `__init__`: pydantic calls a custom one with each validation."""
            if positional:
                model = redact(repr(positional[0])) if isinstance(positional[0], str) else "…"
                raise TypeError(f"{cls.__name__} takes keyword arguments only; write {cls.__name__}(model={model})")
            return super().__new__(cls)

    # Which model ----------------------------------------------------------------------------------------------------

    def _resolve_model(self, values: Mapping[str, Any]) -> tuple[UsedModel, Calling]:
        """Return the model of a call, and how it is called.

        Args:
            values: The settings of the call: the fields, and over them its arguments. Each adapter has `load_config`.

        Raises:
            LMStudioAuthenticationError: If a secret is missing that was left out when this object was pickled.
            LMStudioValueError: If a setting is invalid.
        """
        if self._runtime.dropped_secrets:
            self._check_secrets(values)
        config = load_config_of(values, self._kind)
        spec = ModelSpec.of(values, self._kind, None if config is None else config.to_json(), self._adapters)
        timeouts = tuple([(name, values[name]) for name in TIMEOUTS])  # faster than a generator
        return self._runtime.used(spec), (timeouts, values["max_retries"])

    # Hosts ----------------------------------------------------------------------------------------------------------

    def hosts(self) -> list[HostStatus]:
        """Ask each host what it has of the model; return that, with the calls of this process that run there.

        Calls do not wait for it: they ask by themselves, in the background.
        """
        return self._runtime.hosts(*self._resolve_model(vars(self)))

    async def ahosts(self) -> list[HostStatus]:
        """Ask each host what it has of the model; return that, with the calls of this process that run there."""
        return await self._runtime.ahosts(*self._resolve_model(vars(self)))

    # Life cycle -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the running calls and the connections of this object. It can be used again after that."""
        try:
            if self.unload_on_close:
                self._runtime.unload()
        finally:
            self._runtime.close()

    async def aclose(self) -> None:
        """Do the same as `close`, without blocking. Only `unload_on_close` takes time."""
        try:
            if self.unload_on_close:
                await self._runtime.aunload()
        finally:
            self._runtime.close()


def load_config_of(values: Mapping[str, Any], kind: ModelKind) -> LoadSettings | None:
    """Return the load settings of a call, in which `context_length` takes precedence; `None` if none is set."""
    config, context_length = values["load_config"], values["context_length"]
    if config is None and context_length is None:
        return None
    load_config = cast("type[LoadSettings]", LOAD_CONFIGS[kind])
    parsed = load_config.parse(config)
    if context_length is None:
        return parsed
    return parsed.merged(load_config.parse({"context_length": context_length}))
