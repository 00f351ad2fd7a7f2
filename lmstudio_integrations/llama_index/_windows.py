"""What this process has learnt of context windows: per server and model key, shared by all objects.

LlamaIndex copies the window when an engine or a memory is built, and never asks again. So the number that was handed
out is remembered, and a smaller one that is learnt later is told once.
"""

import warnings
from dataclasses import dataclass

from lmstudio_integrations.client.transport.addresses import resolved_host
from lmstudio_integrations.errors import LMStudioConfigWarning

Key = tuple[str | None, str | None]
"""Host and model key, as the user named them."""


@dataclass(slots=True)
class _Window:
    learnt: int | None = None
    handed_out: int = 0
    told: bool = False


_windows: dict[Key, _Window] = {}


def key_of(host: str | None, model: str | None) -> Key:
    """Return the key of a model on a server; all spellings of one address are alike."""
    return resolved_host(host), model


def learnt(key: Key) -> int | None:
    """Return the window of the loaded instance, in tokens, if it is known."""
    window = _windows.get(key)
    return window.learnt if window else None


def hand_out(key: Key, tokens: int) -> int:
    """Remember that a window was told to LlamaIndex, and return it."""
    window = _windows.setdefault(key, _Window())
    window.handed_out = max(window.handed_out, tokens)
    return tokens


def learn(key: Key, tokens: int) -> None:
    """Take in the window of the loaded instance; warn once if more was promised before."""
    window = _windows.setdefault(key, _Window())
    if window.learnt == tokens:
        return
    window.learnt = tokens
    if tokens < window.handed_out and not window.told:
        window.told = True
        warnings.warn(
            f"the model {key[1] or 'in use'!r} is loaded with a context window of {tokens} tokens, and "
            f"{window.handed_out} were told to LlamaIndex before that was known; lower context_window if you set it, "
            "else call load() before building engines and memories",
            LMStudioConfigWarning,
            stacklevel=2,
        )
