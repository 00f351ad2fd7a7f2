"""The context windows that servers reported to this process, by server and model key, shared by all objects.

LlamaIndex copies the context window when an engine or a memory is built, and never reads it again. So the advertised
number is recorded, and the user gets one warning if the server reports a smaller one later.

LlamaIndex fills the context window to the last token, and counts the texts of messages only. So the tokens that the
chat template adds to them are recorded as well.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations.client.support.tracebacks import warn_user
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioConfigWarning

logger = logging.getLogger(__name__)

Key = tuple[tuple[str | None, ...], tuple[str, ...], str | None]
"""Addresses of the servers, devices that are meant, and model key."""


UNMEASURED_TEMPLATE = 64
"""Tokens that most chat templates add at most, for as long as those of the model are not known."""


@dataclass(slots=True)
class _ContextWindow:
    reported: int | None = None
    template: int = UNMEASURED_TEMPLATE
    advertised: int = 0
    warned: bool = False


_context_windows: dict[Key, _ContextWindow] = {}


def _of(key: Key) -> _ContextWindow:
    # Not a `defaultdict`, in which threads that ask at once may get objects of their own.
    return _context_windows.get(key) or _context_windows.setdefault(key, _ContextWindow())


def key_of(values: Mapping[str, Any]) -> Key:
    """Return the key of the model of a call, by its settings; all spellings and orders of addresses give the same."""
    host, device = values["host"], values["device"]
    devices = {own or device or "" for _, own in addresses.places_of(host)}
    return addresses.resolved_hosts(host), tuple(sorted(devices)), values["model"]


def recorded(key: Key) -> int | None:
    """Return the context window of the loaded instance, in tokens, if it is known."""
    return _of(key).reported


def template_tokens(key: Key) -> int:
    """Return how many tokens the chat template adds to a message."""
    return _of(key).template


def advertise(key: Key, tokens: int, *, is_known: bool) -> int:
    """Record that LlamaIndex gets this context window, and return it. Logs once if it is only LlamaIndex's default."""
    entry = _of(key)
    if not is_known and not entry.advertised:
        logger.info(
            "LlamaIndex assumes a context window of %d tokens for the model %r, because no server has reported one; "
            "call load() first, or set context_window",
            tokens,
            key[2] or "in use",
        )
    entry.advertised = max(entry.advertised, tokens)
    return tokens


def record(key: Key, tokens: int, template: int | None = None) -> None:
    """Record the context window of the loaded instance, and how many tokens its chat template adds, if that is known.

    Warns once if a larger window was advertised before.
    """
    entry = _of(key)
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
