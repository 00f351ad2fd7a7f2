"""The interfaces on which a user can make a mistake: a call on each, with the same arguments."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import lmstudio_integrations as lms
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.types.config import ModelKind
from tests.support.adapters import ADAPTERS, Adapter

Framework: TypeAlias = Literal["native", "LangChain", "LlamaIndex"]

_OF_CLIENT = {"connect_timeout", "load_timeout", "queue_timeout", "first_token_timeout", "idle_timeout"}
_OF_CLIENT |= {"total_timeout", "keepalive", "api_token", "headers"}
_OF_MODEL = {"ttl", "load_policy", "on_config_mismatch"}
_OF_LOAD_CONFIG = {"context_length", "load_config"}
_OF_CALL = {"preset", "response_format"}
_ARGUMENTS = {"response_format", "tools"}
"""What adapters take as arguments of a call only."""


@dataclass(frozen=True)
class Surface:
    """An interface.

    Attributes:
        framework: Where it belongs.
        kind: The kind of its models.
        run: Makes a call: takes the host and the settings by the adapters' names.
        adapter: The class of an adapter.
    """

    framework: Framework
    kind: ModelKind
    run: Callable[..., Any]
    adapter: Callable[..., Any] | None = None

    def __call__(self, host: str | None, **settings: Any) -> Any:
        return self.run(host, **settings)


def _adapter(adapter: Adapter) -> Surface:
    def run(host: str | None, *, prompt: str = "hello", **settings: Any) -> Any:
        given = {name: settings.pop(name) for name in _ARGUMENTS & settings.keys()}
        limits = {name: settings.pop(name) for name in TIMEOUTS if name in settings}
        model = adapter.make(**{"host": host, **settings, **({"timeouts": limits} if limits else {})})
        return adapter.call(model, prompt, **given)

    return Surface(adapter.framework, "embedding" if adapter.kind == "embedding" else "llm", run, adapter.make)


def _picked(settings: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _native_arguments(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments of a client, of `model` and of `respond`."""
    for_model = _picked(settings, _OF_MODEL)
    config = {**_picked(settings, {"context_length"}), **settings.get("load_config", {})}
    rest = settings.keys() - _OF_CLIENT - _OF_MODEL - _OF_LOAD_CONFIG - _OF_CALL - {"model"}
    for_call = _picked(settings, _OF_CALL) | ({"config": _picked(settings, rest)} if rest else {})
    return _picked(settings, _OF_CLIENT), for_model | ({"config": config} if config else {}), for_call


def _client(kind: ModelKind) -> Surface:
    def run(host: str | None, *, prompt: str = "hello", **settings: Any) -> Any:
        for_client, for_model, for_call = _native_arguments(settings)
        with lms.Client(host, **for_client) as client:
            if kind == "llm":
                return client.llm.model(settings.get("model"), **for_model).respond(prompt, **for_call)
            return client.embedding.model(settings.get("model"), **for_model).embed(prompt, **for_call)

    return Surface("native", kind, run)


SURFACES = {name: _adapter(each) for name, each in ADAPTERS.items()}
SURFACES |= {"Client.llm": _client("llm"), "Client.embedding": _client("embedding")}
