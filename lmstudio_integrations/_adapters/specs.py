"""Which servers, which model, and which handle of it a call uses. Keys of the caches of `runtime.py`, so hashable."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeAlias, cast

from pydantic import SecretStr

from lmstudio_integrations._adapters.input_checks import HostTokens, tokens_of
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.support.progress_bars import ShowProgress
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import LOAD_CONFIGS, LoadSettings, ModelKind

AdapterNames: TypeAlias = tuple[tuple[ModelKind, str], ...]
"""The adapter of each kind of model."""


class ServerSpec(NamedTuple):
    """Which server: its address, the credentials for it, and how the client connects to it."""

    host: str | None
    token: str | None
    headers: tuple[tuple[str, str], ...]
    ca_file: str | None
    max_message_bytes: int | None

    def __repr__(self) -> str:
        return f"ServerSpec(host={self.host!r})"


class Place(NamedTuple):
    """Where a model is used: a server, and the device of it; `None` leaves the device to the server."""

    server: ServerSpec
    device: str | None


class ModelSpec(NamedTuple):
    """Which model, in which places, and how to load it.

    It is hashable, because models are cached by it: `load_config` is JSON text.
    `adapters` has the adapter of each kind of model, which errors name.
    """

    places: tuple[Place, ...]
    kind: ModelKind
    key: str | None
    ttl: float | None
    load_config: str | None
    load_policy: Any
    evict: Any
    on_config_mismatch: Any
    on_load_progress: Callable[[float], Any] | None
    show_progress: ShowProgress
    adapters: AdapterNames


class HandleSpec(NamedTuple):
    """Which handle of a model: calls that differ in timeouts or retries share a model."""

    model: ModelSpec
    timeouts: tuple[tuple[str, float | None], ...]
    max_retries: int

    @classmethod
    def of(cls, values: Mapping[str, Any], kind: ModelKind, adapters: AdapterNames) -> Self:
        """Return the handle that a call uses.

        Args:
            values: The settings of the call.
            kind: The kind of its model.
            adapters: See `ModelSpec`.

        Raises:
            LMStudioValueError: If a setting is invalid.
        """
        places = places_of(values)
        if len(places) > 1 and values["model"] is None:
            raise LMStudioValueError("several hosts need a model; otherwise each of them would use another one")
        config, on_load_progress = load_config_of(values, kind), values["on_load_progress"]
        model = ModelSpec(
            places,
            kind,
            values["model"],
            values["ttl"],
            None if config is None else config.to_json(),
            values["load_policy"],
            values["evict"],
            values["on_config_mismatch"],
            None if on_load_progress is None else _hashable(on_load_progress),
            values["show_progress"],
            adapters,
        )
        timeouts = tuple([(name, values[name]) for name in TIMEOUTS])  # faster than a generator
        return cls(model, timeouts, values["max_retries"])


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


def places_of(values: Mapping[str, Any]) -> tuple[Place, ...]:
    """Return the servers of a call, each with the device that is meant.

    Args:
        values: The settings of the call.

    Raises:
        LMStudioValueError: If a host is no address, or a token is for none of them.
    """
    servers = servers_of(values)
    if len(servers) == 1 and (values["host"] is None or isinstance(values["host"], str)):  # which is faster
        return (Place(servers[0], values["device"]),)
    by_host = dict(zip(addresses.hosts_of(values["host"]), servers, strict=True))
    pairs = addresses.places_of(values["host"])
    return tuple([Place(by_host[host], values["device"] if device is None else device) for host, device in pairs])


def servers_of(values: Mapping[str, Any]) -> tuple[ServerSpec, ...]:
    """Return the servers of a call.

    Args:
        values: The settings of the call.

    Raises:
        LMStudioValueError: If a host is no address, or a token is for none of them.
    """
    hosts, token = addresses.hosts_of(values["host"]), values["api_token"]
    secrets: Mapping[str, SecretStr] = values["headers"] or {}
    headers = tuple([(name, value.get_secret_value()) for name, value in secrets.items()])
    if isinstance(token, HostTokens):
        tokens = tokens_of(hosts, token)
    else:
        tokens = [None if token is None else token.get_secret_value()] * len(hosts)
    ca_file, max_bytes = values["ca_file"], values["max_message_bytes"]
    return tuple(
        [ServerSpec(host, token, headers, ca_file, max_bytes) for host, token in zip(hosts, tokens, strict=True)]
    )


class _ByIdentity:
    """Makes a callable hashable that is not, such as an instance of a dataclass."""

    def __init__(self, call: Callable[[float], Any]) -> None:
        self._call = call

    def __call__(self, progress: float) -> None:
        self._call(progress)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other._call is self._call

    def __hash__(self) -> int:
        return id(self._call)


def _hashable(call: Callable[[float], Any]) -> Callable[[float], Any]:
    """Return a callback that can be part of a `ModelSpec`, which is a key of caches."""
    try:
        hash(call)
    except TypeError:
        return _ByIdentity(call)
    return call
