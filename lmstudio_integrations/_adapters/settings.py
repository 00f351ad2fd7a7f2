"""The fields of all objects that hold settings of a connection: the server, the model; and their life cycle.

The adapters of models have both, those of tools (`settings_toolkit.py`) the server's. Each call reads the fields, so an
assignment takes effect with the next one. Nothing here opens a connection.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import cache, cached_property
from inspect import get_annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

import lmstudio_integrations as lms
from lmstudio_integrations._adapters import settings_types
from lmstudio_integrations._adapters.request_model import (
    AdapterNames,
    BaseRuntime,
    Calling,
    ModelSpec,
    Runtime,
    UsedModel,
)
from lmstudio_integrations._adapters.settings_checks import (
    SECRETS,
    normalize_input,
    resolve_aliases,
    validated,
    with_host,
)
from lmstudio_integrations._adapters.settings_types import (
    BASE_URL,
    api_token_field,
    token_from_environment,
)
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.secrets import redact, without_secrets
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow, T, arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.errors import LMStudioAuthenticationError
from lmstudio_integrations.types._numbers import Count, Natural, Seconds
from lmstudio_integrations.types._wire_model import ExplainedModel, explained
from lmstudio_integrations.types.config import (
    LOAD_CONFIGS,
    LoadPolicy,
    LoadSettings,
    ModelKind,
    OnConfigMismatch,
)
from lmstudio_integrations.types.models import ModelInstanceInfo
from lmstudio_integrations.types.timeouts import SILENCE_TIMEOUTS

ModelT = TypeVar("ModelT", bound=Model)

_PACKAGE = __name__.partition(".")[0]

_NOT_IN_SCHEMA = ("custom_get_token_ids", "rate_limiter")
"""langchain-core's fields with a type that JSON schemas do not have."""


class _Signature:
    """The signature of a class whose schema is built with its first object: reading it builds the schema."""

    def __get__(self, instance: BaseModel | None, owner: type[BaseModel]) -> Any:
        if instance is not None:  # for `inspect`, an object has the signature of its `__call__`
            raise AttributeError("__signature__ is an attribute of the class")
        owner.model_rebuild()  # which replaces this attribute
        return owner.__signature__


class ServerSettings(ExplainedModel):
    """Which server, and how long to wait for it."""

    # Built with the first object: after `__pydantic_init_subclass__`, which describes the framework's fields.
    # In JSON, an infinite number would be null, which is another setting.
    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, ser_json_inf_nan="strings")

    _framework_descriptions: ClassVar[Mapping[str, str]] = {}
    """Descriptions of the framework's fields."""

    host: str | Sequence[str | tuple[str, str]] | None = Field(
        default=None,
        description="Address of the server: `host:port` or a URL, with or without `/v1`. With a list, each call runs "
        "on a server with a free slot; a pair in it, `(address, device)`, is a linked device of a server. If unset, "
        "`LMSTUDIO_HOST` applies (commas separate several), else LM Studio on "
        "this machine. `base_url` is an alias; read, it is the first server's address for clients of OpenAI.",
    )

    api_token: SecretStr | None = api_token_field()

    base_url = BASE_URL
    """Another name of `host`."""

    headers: Mapping[str, str | SecretStr] | None = Field(
        default=None,
        exclude=True,
        description="Extra HTTP headers for the connection, for example for a proxy. None by default. Their values "
        "are secrets: `repr`, pickles and dumps omit them, and in a call they must be `pydantic.SecretStr`.",
    )

    ca_file: str | os.PathLike[str] | None = Field(
        default=None,
        description="Path of a PEM file with certificate authorities to trust, for `wss://` and `https://` hosts. If "
        "unset, the system's are trusted.",
    )

    timeouts: settings_types.ModelTimeoutsDict = None

    if TYPE_CHECKING:

        @cached_property
        def _runtime(self) -> BaseRuntime:
            """What this object has open."""
            ...

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Make an object of a dict, as the constructor does."""
        return explained(super().model_validate, obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Make an object of a JSON text, as the constructor does."""
        return explained(super().model_validate_json, json_data, **options)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Describe the framework's fields."""
        super().__pydantic_init_subclass__(**kwargs)
        cast("Any", cls).__signature__ = _Signature()
        for name in cls._framework_descriptions.keys() & cls.model_fields.keys():
            cls.model_fields[name].description = cls._framework_descriptions[name]  # of a copy of the framework's field
        for name in cls.model_fields.keys() & _NOT_IN_SCHEMA:
            cls.model_fields[name].metadata = [*cls.model_fields[name].metadata, cast("Any", SkipJsonSchema)()]

    @model_validator(mode="before")
    @classmethod
    def _check_input(cls, values: Any) -> Any:
        if not is_object(values):
            return values
        return cls._resolve_aliases(normalize_input(values))

    @model_validator(mode="wrap")
    @classmethod
    def _without_secrets(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep secrets out of pydantic's errors, which quote the input."""
        try:
            made = validate(values)
        except ValidationError as error:
            raise without_secrets(error) from None
        fields = vars(made)
        fields.update({name: with_host(name, fields[name], made.host) for name in SECRETS})
        return made

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the input under the names of our fields. The adapters accept more names."""
        return resolve_aliases(values, cls.model_fields, cls.__name__)

    @classmethod
    def _validated(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of a call, an assignment or a copy as the constructor checks and converts them.

        Raises:
            LMStudioValueError: If a value is invalid.
        """
        checked = normalize_input(values)
        for name, value in checked.items():
            if (validator := _validator(cls, name)) is not None:
                checked[name] = validated(name, value, validator)
        return checked

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a setting.

        Raises:
            LMStudioValueError: If the value is invalid.
        """
        if _validator(type(self), name) is not None:  # core assigns fields of its own with each object
            value = with_host(name, self._validated({name: value})[name], vars(self).get("host"))
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings changed; it has its own clients.

        With another host, the token and the headers are left behind: they are for the hosts that they were given with.

        Raises:
            LMStudioValueError: If a setting is unknown, or a value is invalid.
        """
        named = self._resolve_aliases(dict(update or {}))
        changes = self._validated(named)
        host = changes.get("host", self.host)
        return super().model_copy(
            update={name: with_host(name, value, host) for name, value in changes.items()}, deep=deep
        )

    # Life cycle -----------------------------------------------------------------------------------------------------

    def _check_secrets(self, values: Mapping[str, Any]) -> None:
        """Check that a call has its secrets.

        Raises:
            LMStudioAuthenticationError: If one is missing that was left out when this object was pickled.
        """
        for name in self._runtime.dropped_secrets:
            if values[name] is None:
                raise LMStudioAuthenticationError(_DROPPED_ERRORS[name].format(type(self).__name__))

    def close(self) -> None:
        """Close what this object has open. It can be used again after that."""
        self._runtime.close()

    async def aclose(self) -> None:
        """Do the same as `close`."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what `repr` shows: the settings that were set and differ from their defaults."""
        fields, values = type(self).model_fields, vars(self)
        for name in sorted(fields, key=lambda name: name not in {"model", "plugin"}):
            is_shown = name in self.model_fields_set and fields[name].repr and not fields[name].exclude
            default = fields[name].default
            if is_shown and (values[name] != default or type(values[name]) is not type(default)):
                yield name, values[name]

    def __copy__(self) -> Self:
        copied = super().__copy__()
        shared = vars(copied).get("_runtime")
        if shared is not None:
            copied._runtime = copy(shared)  # noqa: SLF001 - a copy of our own kind
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        settings = {name: vars(self)[name] for name in type(self).model_fields}
        return {**state, "__dict__": {**settings, **self._secrets_set()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = state["__dict__"]
        super().__setstate__({**state, "__dict__": {**fields, "api_token": token_from_environment(), "headers": None}})
        self._record_dropped_secrets(fields)

    def _secrets_set(self) -> dict[str, bool]:
        """Return which secrets this object has, or had before it was pickled. Replaces them in a pickle."""
        return {name: vars(self)[name] is not None or name in self._runtime.dropped_secrets for name in SECRETS}

    def _record_dropped_secrets(self, held: Mapping[str, Any]) -> None:
        """Record which secrets the pickle of this object left out."""
        self._runtime.dropped_secrets = frozenset(
            name for name in SECRETS if held.get(name) and vars(self)[name] is None
        )


@cache
def _validator(kind: type[ServerSettings], name: str) -> TypeAdapter[dict[str, Any]] | None:
    """Return what validates a field; `None` for those of the framework and of users' classes, which stay unchecked.

    It validates a dict with the field, because validators read the field's name.
    """
    own, *_ = bases = [base for base in kind.__mro__ if base.__module__.startswith(_PACKAGE)]
    field = own.model_fields.get(name) if issubclass(own, BaseModel) else None
    if field is None or not any(name in get_annotations(base) for base in bases):
        return None
    make_type = cast("Any", TypedDict)  # for type checkers: the name of the field is no literal
    return TypeAdapter(make_type("Setting", {name: Annotated[field.annotation, field]}))


_DROPPED_ERRORS = {
    "api_token": f"the API token was left out when this {{}} was pickled; set {TOKEN_VARIABLES[0]} in this process",
    "headers": "the headers were left out when this {} was pickled; assign them again, or {{}} for none",
}


# Models --------------------------------------------------------------------------------------------------------------


class ModelSettings(ServerSettings):
    """Which model, on which server, and how it is loaded."""

    _kind: ClassVar[ModelKind]
    _adapters: ClassVar[AdapterNames]
    """The adapter of this framework for models of the other kind."""

    _translating: ClassVar[type[AbstractContextManager[object, Any]]] = nullcontext
    """Makes the errors of its block those of the framework."""

    model: str | None = Field(
        default=None,
        description="Key or identifier of the model, as `lmsi ls` lists it. If unset, the server "
        "chooses a loaded model. "
        "`model_name` is an alias.",
    )

    load_policy: LoadPolicy = Field(
        default="get_or_load",
        description="How the model is found or loaded. `get_or_load`, the default of language models, uses a loaded "
        "instance or loads one just in time, which other just-in-time loads evict while Auto-Evict is on. `explicit`, "
        "the default of embedding models, does the same, but no just-in-time load evicts what it loads. `fit` is like "
        "`explicit`, but first it evicts what must go for the model, of what is idle and has a TTL, the least recently "
        "used first; `fit_any` evicts what has no TTL as well. `require_loaded` "
        "never loads. `new_instance` loads an instance for this object alone; each copy loads its own, so prefer "
        "`bind` to APIs that copy the object, such as `configurable_fields`.",
    )

    device: str | None = Field(
        default=None,
        description="The machine that the model is used on: `local` for the server's own, or the name or the "
        "identifier of a linked device (LM Link). If unset, the server chooses: its preferred device, then its own "
        "machine, then any other that has the model. Under `fit`, that is `local`.",
    )

    timeout: Seconds | None = Field(
        default=None,
        description="The longest silence, in seconds, in each phase of a call: while it connects, is queued, loads the "
        "model, processes the prompt, and between two packets of the response. Signs of progress end a silence, so a "
        "response that is still arriving is never cut. An entry of `timeouts` counts for its phase instead; "
        "`total_timeout` in them limits the whole call. If unset, each phase has its default. `request_timeout` is an "
        "alias.",
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

    on_load_progress: SkipJsonSchema[Callable[[float], Any] | None] = Field(
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
        """The models of this object, made with its first call; a private attribute takes time in each constructor."""
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

    def _resolve_model(self, values: Mapping[str, Any], kind: ModelKind | None = None) -> tuple[UsedModel, Calling]:
        """Return the model of a call, and how it is called.

        Args:
            values: The settings of the call: the fields, and over them its arguments. Each adapter has `load_config`.
            kind: The kind of the model, if not that of the adapter.

        Raises:
            LMStudioAuthenticationError: If a secret is missing that was left out when this object was pickled.
            LMStudioValueError: If a setting is invalid.
        """
        if self._runtime.dropped_secrets:
            self._check_secrets(values)
        kind = kind or self._kind
        config = load_config_of(values, kind)
        spec = ModelSpec.of(values, kind, None if config is None else config.to_json(), self._adapters)
        return self._runtime.used(spec), (tuple(timeouts_of(values).items()), values["max_retries"])

    def _with_model(self, mailbox_type: type[Mailbox], work: Callable[[Model], Flow[T]]) -> Flow[T]:
        """Return what a flow of the model returns."""
        used, calling = self._resolve_model(vars(self))
        return work(used.model(calling, mailbox_type))

    # Hosts ----------------------------------------------------------------------------------------------------------

    def hosts(self) -> "list[lms.HostStatus]":
        """Ask each host what it has of the model; return that, with the calls of this process that run there.

        Calls do not wait for it: they ask by themselves, in the background.
        """
        return self._runtime.hosts(*self._resolve_model(vars(self)))

    async def ahosts(self) -> "list[lms.HostStatus]":
        """Ask each host what it has of the model; return that, with the calls of this process that run there."""
        return await self._runtime.ahosts(*self._resolve_model(vars(self)))

    # Life cycle -----------------------------------------------------------------------------------------------------

    def load(self) -> Self:
        """Load the model if it is not loaded; return this object.

        Raises:
            LMStudioServerError: If the server fails.
        """
        with self._translating():
            run(self._with_model(ThreadMailbox, _load))
        return self

    async def aload(self) -> Self:
        """Load the model if it is not loaded; see `load`."""
        with self._translating():
            await arun(self._with_model(LoopMailbox, _load))
        return self

    def unload(self) -> None:
        """Unload the model, on each host, whoever loaded it; the next call loads it again, as `load_policy` says.

        Does nothing where it is not loaded. Without `model`, that is the model of the last call; under `new_instance`,
        only the object's own instance.

        Raises:
            LMStudioServerError: If a server fails.
        """
        with self._translating():
            run(self._unload(ThreadMailbox))

    async def aunload(self) -> None:
        """Unload the model; see `unload`."""
        with self._translating():
            await arun(self._unload(LoopMailbox))

    def _unload(self, mailbox_type: type[Mailbox]) -> Flow[None]:
        used, calling = self._resolve_model(vars(self))
        return used.model(calling, mailbox_type).unload_if_loaded()

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


def _load(model: Model) -> Flow[ModelInstanceInfo]:
    return model.get_info(load=True)


class AuxiliaryModelSettings(ModelSettings):
    """How to load a model that works beside a chat model: an embedding model, a reranker, or one that decides."""

    load_policy: LoadPolicy = Field(
        default="explicit",
        description="How the model is found or loaded; see `load_policy` of the language models. The default is "
        "`explicit`, so that no other model evicts this one.",
    )

    def _model(self, kind: type[ModelT], mailbox_type: type[Mailbox] = ThreadMailbox) -> ModelT:
        """Return the native model, for threads or for coroutines."""
        used, calling = self._resolve_model(vars(self))
        model = used.model(calling, mailbox_type)
        assert isinstance(model, kind), "the kind of the adapter is that of its model"
        return model


def load_config_of(values: Mapping[str, Any], kind: ModelKind) -> LoadSettings | None:
    """Return the load settings of a call, in which `context_length` takes precedence; `None` if none is set."""
    config, context_length = values["load_config"], values["context_length"]
    if config is None and context_length is None:
        return None
    load_config = cast("type[LoadSettings]", LOAD_CONFIGS[kind])
    if isinstance(config, BaseModel) and not isinstance(config, load_config):  # the field is of another kind of models
        config = config.model_dump(exclude_unset=True)
    parsed = load_config.parse(config)
    if context_length is None:
        return parsed
    return parsed.merged(load_config.parse({"context_length": context_length}))


def timeouts_of(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the timeouts of a call that differ from the defaults; its `timeout` is that of each phase without one."""
    given: dict[str, float | None] = values["timeouts"] or {}
    silence: float | None = values.get("timeout")
    return given if silence is None else {**dict.fromkeys(SILENCE_TIMEOUTS, silence), **given}
