"""What the adapters of models share besides their settings: names from other integrations, and how they are pickled.

At the end, the context windows that servers reported to this process, by server and model key, for all objects.
"""

import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeVar

from lmstudio_integrations._adapters.settings import ServerSettings
from lmstudio_integrations._adapters.settings_checks import SECRETS
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioConfigWarning

logger = logging.getLogger(__name__)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

CORE_DESCRIPTIONS = {
    "callback_manager": "Receives the events of every call. It has no handlers by default.",
    "pydantic_program_mode": "How LlamaIndex makes responses fit a pydantic class. The default uses the server's "
    "grammar, the other modes LlamaIndex's own programs.",
    "rate_limiter": "Limits how often calls start. No limit by default.",
    "system_prompt": "System prompt that `predict` and LlamaIndex's programs put before the messages. None by default.",
    "messages_to_prompt": "Called with messages where LlamaIndex needs one text. The default is its generic format.",
    "completion_to_prompt": "Called with the prompt of `complete` to format it; the model continues the result. If "
    "unset, the prompt is a user message in the model's chat template.",
    "output_parser": "Parses the responses of `predict`. By default, they stay as they are.",
    "query_wrapper_prompt": "Template around the prompts of `predict`. None by default.",
    "num_workers": "How many batches an async call embeds at once. By default, as many as the model allows.",
    "embeddings_cache": "Key-value store that caches vectors by their texts. By default, nothing is cached.",
}
"""Our descriptions of core's fields. Its own lack the defaults, and some fields have none."""


class ComponentSettings(ServerSettings):
    """How a component of LlamaIndex is made of a dump, copied and pickled.

    Core's own way to pickle deletes from the original what cannot be pickled.
    """

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out the name of the class, which core dumps."""
        return super()._resolve_aliases({name: value for name, value in values.items() if name != "class_name"})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        limiter = getattr(self, "rate_limiter", None)
        memo[id(limiter)] = limiter  # it cannot be copied, so all copies share it
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        fields = {name: value for name, value in self if _can_be_pickled(value)}
        kind = type(self)
        dropped = [name for name, field in kind.model_fields.items() if name not in fields and not field.exclude]
        if dropped:
            logger.warning("this %s is pickled without %s, which cannot be", kind.__name__, ", ".join(dropped))
        return {"__dict__": {**fields, **self._secrets_set()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = state["__dict__"]
        self.__init__(**{name: value for name, value in fields.items() if name not in SECRETS})  # type: ignore[misc]  # as core's, for the private attributes
        self._record_dropped_secrets(fields)


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickling a user's object may raise anything
        return False
    return True


def without_span(method: FunctionT) -> FunctionT:
    """Return a bound method of core without its span, because the overriding method that calls it has one."""
    bare: FunctionT = getattr(method, "__wrapped__", method)
    return bare


Key = tuple[tuple[str | None, ...], tuple[str, ...], str | None]
"""Addresses of the servers, devices that are meant, and model key."""


UNMEASURED_TEMPLATE = 64
"""Tokens that most chat templates add at most, for as long as those of the model are not known."""


@dataclass(slots=True)
class ContextWindow:
    """What is known of the context window of a model.

    Attributes:
        reported: That of the loaded instance, in tokens, if a server has reported it.
        template: How many tokens the chat template adds to a message.
        advertised: The largest that LlamaIndex got.
        warned: Whether a warning said that this was too large.
    """

    reported: int | None = None
    template: int = UNMEASURED_TEMPLATE
    advertised: int = 0
    warned: bool = False


_MOST_RECORDED = 256
"""Models of servers whose context window is recorded at most."""

_context_windows: BoundedCache[Key, ContextWindow] = BoundedCache(_MOST_RECORDED)


def window_of(key: Key) -> ContextWindow:
    """Return what is known of the context window of a model."""
    return _context_windows.get_or_make(key, ContextWindow)


def key_of(values: Mapping[str, Any]) -> Key:
    """Return the key of the model of a call, by its settings; all spellings and orders of addresses give the same."""
    host: Any = values["host"]
    if not (host is None or isinstance(host, str)):
        host = tuple([each if isinstance(each, str) else tuple(each) for each in host])
    return _key_of(host, values["device"], values["model"], host or addresses.host_from_environment())


@lru_cache
def _key_of(host: Any, device: str | None, model: str | None, _of_environment: Any) -> Key:
    devices = {own or device or "" for _, own in addresses.places_of(host)}
    return addresses.resolved_hosts(host), tuple(sorted(devices)), model


def advertise(key: Key, tokens: int, *, is_known: bool) -> None:
    """Record that LlamaIndex gets this context window. Logs once if it is only LlamaIndex's default."""
    entry = window_of(key)
    if not is_known and not entry.advertised:
        logger.info(
            "LlamaIndex assumes a context window of %d tokens for the model %r, because no server has reported one; "
            "call load() first, or set context_window",
            tokens,
            key[2] or "in use",
        )
    entry.advertised = max(entry.advertised, tokens)


def record(key: Key, tokens: int, template: int | None = None) -> None:
    """Record the context window of the loaded instance, and how many tokens its chat template adds, if that is known.

    Warns once if a larger window was advertised before.
    """
    entry = window_of(key)
    if template is not None:
        entry.template = template
    if entry.reported == tokens:
        return
    entry.reported = tokens
    if tokens < entry.advertised and not entry.warned:
        entry.warned = True
        warn_user(
            f"the model {key[2] or 'in use'!r} is loaded with a context window of {tokens} tokens, but LlamaIndex "
            f"already got {entry.advertised}; lower context_window if you set it, "
            "else call load() before building engines and memories",
            LMStudioConfigWarning,
        )
