"""Checks of what users give to adapters: names of settings, hosts, and secrets, which no error and no trace may show.

`settings.py` runs them on fields and assignments, the frameworks' classes on call arguments.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Self, cast

from pydantic import SecretStr, TypeAdapter
from typing_extensions import TypedDict

from lmstudio_integrations._support.secrets import holds_credentials, holds_secret
from lmstudio_integrations._support.suggestions import explain_unknown_settings
from lmstudio_integrations._support.typeguards import MOST_LEVELS, is_mapping, is_too_deep
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.client.transport.connect.addresses import context_trusting
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._numbers import Seconds
from lmstudio_integrations.types._prediction_settings import AdapterPredictionSettings, NativePredictionSettings
from lmstudio_integrations.types._wire_model import explained
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig

ALIASES = {"base_url": "host", "api_key": "api_token", "model_name": "model", "request_timeout": "timeout"}
"""Names that other packages give to our fields, accepted here as well."""

_TOKEN_NAMES = {"api_token", *(name for name, own in ALIASES.items() if own == "api_token")}
_HOST_NAMES = {"host", *(name for name, own in ALIASES.items() if own == "host")}


def normalize_input(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form that the fields hold, after checks that pydantic does not make.

    Raises:
        LMStudioValueError: If a secret or a host is invalid, `ca_file` cannot be read, or a value is nested too deeply.
    """
    for name, value in values.items():
        if is_too_deep(value):
            raise LMStudioValueError(f"{name} is nested more than {MOST_LEVELS} levels deep")
    return {
        name: _NORMALIZERS[name](name, value) if name in _NORMALIZERS and value is not None else value
        for name, value in values.items()
    }


SECRETS = ("api_token", "headers")
"""Fields that are never pickled, and go only to the hosts for which they were given."""


class HostSecret(SecretStr):
    """A secret of an object, which knows for which hosts it was given.

    Args:
        value: The secret.
        servers: The servers; `None` means any that the program uses.
        is_for_default: Whether it is also for the server that is used if none is named.
    """

    def __init__(self, value: str, servers: frozenset[addresses.Address] | None, *, is_for_default: bool) -> None:
        super().__init__(value)
        self.servers = servers
        self.is_for_default = is_for_default

    def is_for(self, host: str | None, *, is_default: bool) -> bool:
        """Whether it is for a host, which may be used because none was named."""
        if self.servers is None or (is_default and self.is_for_default):
            return True
        return host is not None and addresses.Address.parse(host).server in self.servers

    def __eq__(self, other: object) -> bool:
        if isinstance(other, HostSecret) and (self.servers, self.is_for_default) != (
            other.servers,
            other.is_for_default,
        ):
            return False
        return isinstance(other, SecretStr) and self.get_secret_value() == other.get_secret_value()

    def __hash__(self) -> int:
        return super().__hash__()

    def __repr__(self) -> str:
        return repr(SecretStr(self.get_secret_value()))  # for users, it is one


def with_host(name: str, value: Any, host: Any) -> Any:
    """Return the value of a field; if it is a secret, bound to the hosts that are named beside it.

    A secret that is bound already stays as it is: frameworks pass the fields of one object to another.
    """
    if name not in SECRETS or value is None:
        return value
    if is_mapping(value):
        return {key: with_host(name, each, host) for key, each in value.items()}
    if isinstance(value, HostSecret | HostTokens) or not isinstance(value, SecretStr):
        return value
    servers = frozenset([addresses.Address.parse(each).server for each in addresses.hosts_of(host) if each])
    return HostSecret(value.get_secret_value(), servers, is_for_default=not host)


def secret_for(secret: SecretStr | None, host: str | None, *, is_default: bool) -> str | None:
    """Return a secret in plain text if it is for a host; without hosts of its own, it was given with this one.

    Args:
        secret: The secret.
        host: The host.
        is_default: Whether it is used because none was named.
    """
    if secret is None or (isinstance(secret, HostSecret) and not secret.is_for(host, is_default=is_default)):
        return None
    return secret.get_secret_value()


class HostTokens(SecretStr):
    """The tokens of several hosts, as one secret. Its value is a JSON object of tokens by host."""

    @classmethod
    def of(cls, tokens: Mapping[str, SecretStr]) -> Self:
        return cls(json.dumps({host: token.get_secret_value() for host, token in tokens.items()}))

    @property
    def by_host(self) -> dict[str, str]:
        """The tokens in plain text, by host."""
        return cast("dict[str, str]", json.loads(self.get_secret_value()))


def tokens_of(hosts: Sequence[str | None], tokens: HostTokens) -> list[str | None]:
    """Return the token of each host in plain text; for a host without one `None`, which means the environment's.

    Raises:
        LMStudioValueError: If a token is for another host.
    """
    named = tokens.by_host
    by_address = {addresses.normalized(host): token for host, token in named.items()}
    hosted = [None if host is None else addresses.normalized(host) for host in hosts]
    unknown = [host for host in named if addresses.normalized(host) not in hosted]
    if unknown:
        raise LMStudioValueError(f"api_token has a token for {unknown[0]!r}, and host does not name that; add it there")
    return [None if address is None else by_address.get(address) for address in hosted]


def _secret_tokens(name: str, tokens: object) -> SecretStr:
    if is_mapping(tokens):
        return HostTokens.of({_host_name(name, host): _secret_token(name, token) for host, token in tokens.items()})
    return _secret_token(name, tokens)


def _secret_token(name: str, token: object) -> SecretStr:
    if isinstance(token, SecretStr):
        return token
    if isinstance(token, str):
        return SecretStr(token)
    raise LMStudioValueError(
        f"{name} must be a string or a pydantic.SecretStr, or a dict of them by host; got {type(token).__name__}"
    )


def _host_name(name: str, host: object) -> str:
    if not isinstance(host, str):
        raise LMStudioValueError(f"{name} must have hosts as keys, such as 'studio-a:1234'; got {type(host).__name__}")
    _without_credentials(name, host)
    addresses.Address.parse(host)  # raises if it is not an address
    return host


def _normalized_hosts(name: str, hosts: Any) -> object:
    """Return one host, or several as a list."""
    if isinstance(hosts, Sequence) and not isinstance(hosts, str | bytes):
        # A pair of a host and a device is a list in JSON.
        listed = [
            tuple(cast("list[object]", host)) if isinstance(host, list) else _without_credentials(name, host)
            for host in cast("Sequence[object]", hosts)
        ]
        addresses.places_of(cast("list[str]", listed))  # raises if one is no address, or is named twice
        return listed
    return _without_credentials(name, hosts)


def _without_credentials(name: str, host: Any) -> object:
    if not issubclass(type(host), str | tuple):
        addresses.Address.parse(host)  # raises what to write
    if isinstance(host, str) and holds_credentials(host):
        raise LMStudioValueError(f"{name} must hold no credentials; pass the token as api_token")
    return host


def _secret_headers(_name: str, headers: object) -> dict[str, SecretStr]:
    if is_mapping(headers):
        given = {name: value for name, value in headers.items() if isinstance(value, SecretStr)}
        headers = {**headers, **{name: value.get_secret_value() for name, value in given.items()}}
        return {name: given.get(name) or SecretStr(value) for name, value in addresses.checked_headers(headers)}
    return {name: SecretStr(value) for name, value in addresses.checked_headers(headers)}


def _listed(_name: str, value: object) -> object:
    if isinstance(value, str):
        return [value]
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _normalized_ca_file(name: str, path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise LMStudioValueError(f"{name} must be a path; got {path!r}")
    text = os.fsdecode(cast("str | os.PathLike[str]", path))
    context_trusting(text)  # raises if it cannot be read
    return text


class _RequestTimeout(TypedDict):
    request_timeout: Seconds | None


@cache
def _request_timeout() -> TypeAdapter[Any]:
    return TypeAdapter(_RequestTimeout)


_NORMALIZERS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(_TOKEN_NAMES, _secret_tokens),
    **dict.fromkeys(_HOST_NAMES, _normalized_hosts),
    "headers": _secret_headers,
    "request_timeout": lambda name, value: validated(name, value, _request_timeout()),
    "ca_file": _normalized_ca_file,
    "stop": _listed,
}
"""What changes and checks a setting, before validation."""


def validated(name: str, value: object, validator: TypeAdapter[dict[str, Any]]) -> Any:
    """Return a setting as pydantic checks and converts it.

    Raises:
        LMStudioValueError: If it is invalid.
    """
    return explained(validator.validate_python, {name: value})[name]


_WITHOUT_EFFECT: dict[str, Callable[[object], bool]] = {
    # What a hosted provider keeps beside a response, or reads of its own: LlamaIndex's contextual retrieval passes a
    # header of Anthropic to any model.
    **dict.fromkeys(("extra_headers", "metadata", "user"), lambda _: True),
    # Nothing more than what any call does: ragas passes n=1, multimodal programs of LlamaIndex an empty list.
    **dict.fromkeys(("extra_body", "image_documents", "stream"), lambda value: not value),
    **dict.fromkeys(("best_of", "n"), lambda value: value == 1),
}
"""Arguments that others pass to calls of any model, and the values of them that change no response."""


def with_effect(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the arguments of a call that may change its response.

    An unknown one that is `None` requests nothing: a newer version of a framework may pass it to every model.
    """
    return {name: value for name, value in given.items() if name in known or _has_effect(name, value)}


def _has_effect(name: str, value: object) -> bool:
    return value is not None and not (name in _WITHOUT_EFFECT and _WITHOUT_EFFECT[name](value))


def reject_secrets(given: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    """Reject call arguments that would show a secret in a trace. Runs before the framework traces them.

    Args:
        given: The arguments.
        known: The known names; the values of unknown ones are searched for secrets.
        owner: The name of the adapter's class.

    Raises:
        LMStudioValueError: If a token or a header is not a `SecretStr`, or if a host or an unknown argument contains a
            secret.
    """
    for name, value in given.items():
        if name in _TOKEN_NAMES and not _is_hidden(value):
            raise LMStudioValueError("pass api_token to a call as a pydantic.SecretStr; call arguments are traced")
        if name == "headers" and not _is_hidden(value):
            raise LMStudioValueError(
                "pass headers to a call as a dict with pydantic.SecretStr as values; call arguments are traced"
            )
        if name in _HOST_NAMES and value is not None:
            _normalized_hosts(name, value)
        # A header that is ignored need not be secret, though the name of all headers is that of a secret.
        if name not in known and holds_secret(value, name if _has_effect(name, value) else ""):
            raise _unknown_settings([name], known, owner)


def _unknown_settings(names: Sequence[str], known: Collection[str], owner: str) -> LMStudioValueError:
    of_others = _LANGUAGE_ONLY if "length_policy" in known else ()
    return LMStudioValueError(explain_unknown_settings(names, known, owner, places_of_settings(known), of_others))


_LANGUAGE_ONLY = {
    *LlmPredictionConfig.model_fields,
    *AdapterPredictionSettings.model_fields,
    *("prediction_config", "stop", "check_context", "stop_on_repetition", "streaming"),
}
"""Settings that embedding models do not have."""


def places_of_settings(known: Collection[str]) -> dict[str, Collection[str]]:
    """Return the fields of an adapter that hold further settings, with the names of those."""
    load_config = EmbeddingLoadModelConfig if "length_policy" in known else LlmLoadModelConfig
    places: dict[str, Collection[str]] = {
        "timeouts": TIMEOUTS.keys(),
        "prediction_config": NativePredictionSettings.model_fields.keys()
        | {"context_overflow_policy", "prompt_template"},
        "load_config": load_config.model_fields.keys() - {"raw"},
    }
    return {place: names for place, names in places.items() if place in known}


def _is_hidden(value: object) -> bool:
    """Whether a trace shows nothing of a token or of headers."""
    values = value.values() if is_mapping(value) else [value]
    return value is None or all(isinstance(each, SecretStr) for each in values)


def resolve_aliases(
    values: Mapping[str, Any], known: Collection[str], owner: str, of_object: Collection[str] = ()
) -> dict[str, Any]:
    """Return settings under the names of our fields, for which `ALIASES` has other names.

    Args:
        values: The settings.
        known: The known names.
        owner: The name of the adapter's class.
        of_object: Names that only its constructor knows.

    Raises:
        LMStudioValueError: If names are unknown; it says of each what to write.
    """
    named: dict[str, Any] = {}
    names: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in values.items():
        own = name if name in known else ALIASES.get(name, name)
        if own in of_object:
            raise LMStudioValueError(f"{name!r} is a setting of the object, not of a call; pass it to {owner}(…)")
        if own not in known:
            unknown.append(name)
        if own in named:
            raise LMStudioValueError(f"{names[own]!r} and {name!r} are the same setting; give one of them")
        named[own], names[own] = value, name
    if unknown:
        raise _unknown_settings(unknown, known, owner)
    return named
