"""The fields that all adapters share: which server, which model, how patiently; and their life cycle.

A field is only read when a call is made, so assignment after use takes effect; nothing here opens a connection.
"""

import os
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from lmstudio_integrations._adapters.progress import bar
from lmstudio_integrations._adapters.runtime import Runtime, Server, Wanted
from lmstudio_integrations._environment import TOKEN_VARIABLES
from lmstudio_integrations._hints import hint, near
from lmstudio_integrations._narrow import is_object
from lmstudio_integrations._secrets import holds_credentials, holds_secret, without_secrets
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioValueError
from lmstudio_integrations.types.config import (
    LlmLoadModelConfig,
    LoadPolicy,
    LoadSettings,
    ModelKind,
    OnConfigMismatch,
)

CLOCKS = (
    "connect_timeout",
    "load_timeout",
    "queue_timeout",
    "first_token_timeout",
    "idle_timeout",
    "timeout",
    "keepalive",
)

ALIASES = {"base_url": "host", "api_key": "api_token", "model_name": "model"}
"""Names that other adapters have for our fields."""

_TOKENS = {"api_token", *(name for name, own in ALIASES.items() if own == "api_token")}
_HOSTS = {"host", *(name for name, own in ALIASES.items() if own == "host")}

_ELSEWHERE = {
    "keep_alive": "ttl",
    "max_completion_tokens": "max_tokens",
    "model_kwargs": "extra",
    "num_ctx": "context_length",
    "num_predict": "max_tokens",
    "reasoning": "enable_thinking",
    "repetition_penalty": "repeat_penalty",
    "request_timeout": "timeout",
    "stop_sequences": "stop",
    "validate_model_on_init": "load_profile()",
}
"""Names of other adapters that mean something near one of ours; only named in errors."""

Seconds = Annotated[float, Field(gt=0)]


def token_from_environment() -> SecretStr | None:
    """Return the API token of this process, if it has one."""
    found = next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    return None if found is None else SecretStr(found)


class Connected(BaseModel):
    """Which server and which model."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    _kind: ClassVar[ModelKind]
    _load_settings: ClassVar[type[LoadSettings]]

    model: str | None = None
    """Key or identifier of the model; `None` is any that is loaded. An alias is `model_name`."""

    host: str | None = None
    """`host:port` or a URL; a trailing `/v1` is dropped. Without one: `LMSTUDIO_HOST`, else the LM Studio that is found
    on this machine. An alias is `base_url`."""

    api_token: SecretStr | None = Field(default_factory=token_from_environment)
    """An LM Studio API token. Without one: `LM_API_TOKEN`, else `LMSTUDIO_API_TOKEN`, read when the object is made.
    Never in `repr`, pickles or `dumpd`. An alias is `api_key`."""

    load_policy: LoadPolicy = "get_or_load"
    """How the model is found or loaded. `get_or_load` (default of language models) loads it just in time, so other
    just-in-time loads evict it while Auto-Evict is on. `explicit` (default of embedding models) uses a loaded instance,
    or loads one that is never evicted. `require_loaded` never loads. `new_instance` loads an instance for this object
    alone. Every copy loads its own then: use `bind` rather than what copies the object for each call, such as
    `configurable_fields`."""

    ttl: Seconds | None = None
    """Unload the model after this many seconds without use. Takes effect only if a call of this object loads it. `None`
    means the server's default under `get_or_load`, 3,600 under `explicit`, and that a new instance stays. `math.inf`
    keeps an explicit load or a new instance."""

    unload_on_close: bool = False
    """Whether `close` also unloads the models that this object loaded. What it found loaded stays."""

    context_length: Annotated[int, Field(ge=1)] | None = None
    """Window to load the model with, in tokens; short for that entry of `load_config`."""

    on_config_mismatch: OnConfigMismatch = "warn"
    """What to do when the model is loaded already, with other settings than `load_config` asks for."""

    on_load_progress: Callable[[float], Any] | None = Field(default=None, exclude=True)
    """Takes growing values from 0.0 to 1.0 while the model is loaded; called by the thread or task that waits."""

    show_progress: bool = False
    """Whether to draw a progress bar on the error stream."""

    connect_timeout: Seconds | None = 5.0
    """Seconds until the server has accepted the client, or has answered a ping after a silence. `None` switches a
    timeout off."""

    load_timeout: Seconds | None = 300.0
    """Seconds between two signs of progress while the model is loaded."""

    queue_timeout: Seconds | None = 600.0
    """Seconds from the request to its first packet. It starts again whenever the queue of the model instance moves."""

    first_token_timeout: Seconds | None = 300.0
    """Seconds between two signs of progress while the prompt is read."""

    idle_timeout: Seconds | None = 60.0
    """Seconds between two packets of a response, and for the answer to any other call."""

    timeout: Seconds | None = None
    """Seconds for the whole call."""

    keepalive: Seconds | None = 20.0
    """Ping the server after this many seconds of silence. A dead connection is replaced, and its calls fail at once; a
    server that is frozen only ends what times out."""

    max_retries: Annotated[int, Field(ge=0)] = 0
    """How often to make a call again when no server answers, or when the connection is lost before the caller has seen
    anything of the response. Nothing else is repeated."""

    _runtime: Runtime = PrivateAttr(default_factory=Runtime)

    def model_post_init(self, context: Any, /) -> None:
        """Let the framework's own base class have its turn; without this, our private fields would end the chain."""
        super().model_post_init(context)

    @model_validator(mode="before")
    @classmethod
    def _lmstudio_names(cls, values: Any) -> Any:
        return cls._under_own_names(_checked(values)) if is_object(values) else values

    @model_validator(mode="wrap")
    @classmethod
    def _without_secrets(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep secrets out of pydantic's errors, which show the end of what was given."""
        try:
            return validate(values)
        except ValidationError as error:
            raise without_secrets(error) from None

    @classmethod
    def _under_own_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return what was given under the names of our fields."""
        known = cls.model_fields
        return values if values.keys() <= known.keys() else own_names(values, known)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a setting; a token is hidden.

        Raises:
            LMStudioValueError: If a token is no string, or a host holds credentials.
        """
        super().__setattr__(name, _checked({name: value})[name])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with other values for some settings; it has connections of its own.

        Raises:
            LMStudioValueError: If a setting is unknown, a token is no string, or a host holds credentials.
        """
        return super().model_copy(update=own_names(_checked(update or {}), type(self).model_fields), deep=deep)

    # Which model ----------------------------------------------------------------------------------------------------

    def _server(self, values: Mapping[str, Any], runtime: Runtime) -> Server:
        """Return the server that a call is for."""
        token: SecretStr | str | None = values["api_token"]
        secret = token.get_secret_value() if isinstance(token, SecretStr) else token
        if secret is None and runtime.lost_token:
            raise LMStudioAuthenticationError(
                f"the API token was left out when this {type(self).__name__} was pickled; "
                f"set {TOKEN_VARIABLES[0]} in this process"
            )
        return Server(values["host"], secret, tuple([(name, values[name]) for name in CLOCKS]))

    def _wanted(self, values: Mapping[str, Any], config: LoadSettings | None) -> Wanted:
        """Return the model that a call is for."""
        progress = _as_key(values["on_load_progress"])
        return Wanted(
            self._kind,
            values["model"],
            values["ttl"],
            None if config is None else config.to_json(),
            values["load_policy"],
            values["on_config_mismatch"],
            _both(progress, bar(f"Loading {values['model']}")) if values["show_progress"] else progress,
        )

    def _load_config(self, values: Mapping[str, Any]) -> LoadSettings | None:
        """Return how to load the model; `None` if nothing is set."""
        config, context_length = values["load_config"], values["context_length"]
        if config is None and context_length is None:
            return None
        settings = self._load_settings.parse(config)
        if context_length is None:
            return settings
        return settings.merged(self._load_settings.parse({"context_length": context_length}))

    # Life cycle -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop what this object has running and let go of its connections. It may be used again after that."""
        if self.unload_on_close:
            self._runtime.unload()
        self._runtime.close()

    async def aclose(self) -> None:
        """Do what `close` does; it waits only for `unload_on_close`."""
        if self.unload_on_close:
            await self._runtime.aunload()
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._runtime = Runtime()  # noqa: SLF001 - a copy of our own kind
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        fields = dict(state["__dict__"])
        state["__dict__"] = {**fields, "api_token": fields["api_token"] is not None or self._runtime.lost_token}
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = state["__dict__"]
        had_token, token = fields["api_token"], token_from_environment()
        super().__setstate__({**state, "__dict__": {**fields, "api_token": token}})
        self._runtime.lost_token = had_token and token is None


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with their tokens hidden.

    Raises:
        LMStudioValueError: If a token is no string, or a host holds credentials.
    """
    checked = dict(values)
    for name in _TOKENS & checked.keys():
        checked[name] = _hidden(name, checked[name])
    for name in _HOSTS & checked.keys():
        _reject_credentials(name, checked[name])
    return checked


def _hidden(name: str, token: object) -> SecretStr | None:
    if token is None or isinstance(token, SecretStr):
        return token
    if isinstance(token, str):
        return SecretStr(token)
    raise LMStudioValueError(f"{name} must be a string or a pydantic.SecretStr; got {type(token).__name__}")


def _reject_credentials(name: str, host: object) -> None:
    if isinstance(host, str) and holds_credentials(host):
        raise LMStudioValueError(f"{name} must hold no credentials; pass the token as api_token")


def reject_secrets(given: Mapping[str, Any], known: Collection[str]) -> None:
    """Reject the arguments of a call that would show a secret in a trace. Called before a trace gets them.

    Args:
        given: The arguments.
        known: The names that mean something; the values of others are checked too.

    Raises:
        LMStudioValueError: If a token is no `SecretStr`, a host holds credentials, or an unknown argument a secret.
    """
    for name, value in given.items():
        if name in _TOKENS:
            if not (value is None or isinstance(value, SecretStr)):
                raise LMStudioValueError("give a call its api_token as a pydantic.SecretStr; its arguments are traced")
        elif name in _HOSTS:
            _reject_credentials(name, value)
        elif name not in known and holds_secret(value, name):
            own_names({name: value}, known)


def own_names(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return settings under our names.

    Raises:
        LMStudioValueError: If a name is unknown; the nearest known one is suggested.
    """
    named: dict[str, Any] = {}
    for name, value in values.items():
        own = name if name in known else ALIASES.get(name, name)
        if own not in known:
            meant = [_ELSEWHERE[name]] if name in _ELSEWHERE else near(name, known)
            raise LMStudioValueError(f"unknown setting {name!r}; {hint(known, meant)}")
        if own in named:
            raise LMStudioValueError(f"{name!r} is another name of {own!r}; give one of them")
        named[own] = value
    return named


class _ByIdentity:
    """A callable that cannot be a key, such as an instance of a dataclass; this can."""

    def __init__(self, call: Callable[[float], Any]) -> None:
        self._call = call

    def __call__(self, progress: float) -> None:
        self._call(progress)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other._call is self._call

    def __hash__(self) -> int:
        return id(self._call)


def _as_key(call: Callable[[float], Any] | None) -> Callable[[float], Any] | None:
    try:
        hash(call)
    except TypeError:
        assert call is not None, "None can be a key"
        return _ByIdentity(call)
    return call


@lru_cache(maxsize=64)
def _both(first: Callable[[float], Any] | None, second: Callable[[float], Any]) -> Callable[[float], Any]:
    def tell(progress: float) -> None:
        if first is not None:
            first(progress)
        second(progress)

    return tell


def _parsed(settings: type[LoadSettings]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else settings.parse(value))


LlmLoadConfig = Annotated[LlmLoadModelConfig | Mapping[str, Any] | None, _parsed(LlmLoadModelConfig)]
"""Load settings of a language model, as an object or a dict with either spelling."""
