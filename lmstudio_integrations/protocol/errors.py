"""Errors on the wire to exceptions: by code first, then by known texts of the server (docs/protocol.md#errors).

The client adds suggestions (`client/support/suggestions.py`). This runs on the thread that serves every call, so its
work is bounded: long texts are cut first, and each pattern needs time linear in the text.
"""

import re
from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioContextOverflowError,
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioPresetNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioStructuredOutputError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
    LMStudioWrongModelKindError,
)

ErrorT = TypeVar("ErrorT", bound=BaseException)

# Codes are in displayData, never in errorData (docs/protocol.md#error-codes). For some of them, the official SDK raises
# its base class (docs/protocol.md#errors-to-exceptions).
_BY_CODE: dict[str, type[LMStudioServerError]] = {
    "generic.noModelMatchingQuery": LMStudioModelNotFoundError,
    "generic.pathNotFound": LMStudioModelNotFoundError,
    "generic.identifierNotFound": LMStudioModelNotFoundError,
    "generic.specificModelUnloaded": LMStudioModelUnloadedError,
    "generic.domainMismatch": LMStudioWrongModelKindError,
    "generic.engineDoesNotSupportFeature": LMStudioUnsupportedError,
    "generic.missingRuntimeExtension": LMStudioModelLoadError,
    "generic.presetNotFound": LMStudioPresetNotFoundError,
}

# The first match counts, so narrow texts stand before wide ones: a context overflow before "failed to load".
# A search tries each position where a pattern may begin. Two texts with anything between them (`n_keep` … `n_ctx`)
# would take the square of the length, so the first is searched once in a line: `(?>…)` never backtracks.
_BY_TEXT: tuple[tuple[re.Pattern[str], type[LMStudioServerError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"keep the first \d+ tokens when context the overflows", LMStudioContextOverflowError),
        (r"(?m)^(?>.*?n_keep).*n_ctx", LMStudioContextOverflowError),
        (r"(exceeds?|larger than|overflows?) (the )?(available )?context", LMStudioContextOverflowError),
        (r"no models? (is |are )?(currently )?loaded", LMStudioModelNotFoundError),
        (r'(?m)^(?>.*?model ").*" not found|cannot find (a )?model', LMStudioModelNotFoundError),
        (r"model is not (embedding|llm|decision)|not an? (embedding|llm|decision)", LMStudioWrongModelKindError),
        (r"model (is|was|has been) unloaded|model unloaded", LMStudioModelUnloadedError),
        (r"insufficient system resources", LMStudioInsufficientResourcesError),
        (r"model has crashed", LMStudioModelCrashedError),
        (r"(?<![\w/.-])jinja(?![\w/-])|prompt template", LMStudioPromptTemplateError),
        (r"does not support (images|vision)", LMStudioUnsupportedError),
        (r"failed to parse tool call", LMStudioToolCallError),
        (r"failed to load|load-error|error loading model|no lm runtime found", LMStudioModelLoadError),
        (r"'type' must be a string", LMStudioStructuredOutputError),
        (r"prediction-error|iterating prediction stream|generation failed|channel error", LMStudioPredictionError),
        (r"api token|api key", LMStudioAuthenticationError),
    )
)

_NAMED = re.compile(r"""(model|identifier|path) (["'])[^"'\n]{0,512}\2""", re.IGNORECASE)
"""A name in a text, which may contain any words."""

_NUMBERS = re.compile(
    r"first (\d{1,12}) tokens.{0,200}?length of only (\d{1,12})|n_keep \(?(\d{1,12})\)? >= n_ctx \(?(\d{1,12})\)?"
    r"|request \((\d{1,12}) tokens\) exceeds the available context size \((\d{1,12}) tokens\)"
    r"|request exceeds the available context size \((\d{1,12}) tokens\)",
    re.DOTALL,
)

OVERFLOW = "the prompt has {used} tokens, and the model is loaded with a context length of {limit}"
"""The text of a prompt that does not fit."""


def error_object(value: object) -> Mapping[str, Any]:
    """Return an error on the wire as the object that it should be; a mere string is taken as the title."""
    if is_object(value):
        return value
    return {"title": value} if isinstance(value, str) else {}


def to_exception(
    error: Mapping[str, Any],
    label: str,
    default: type[LMStudioServerError] = LMStudioServerError,
    *,
    kind: type[LMStudioServerError] | None = None,
) -> LMStudioServerError:
    """Return the exception of an error on the wire.

    Args:
        error: The error object; every field of it is optional and may have any type.
        label: What failed, for the message: `RPC`, `Model load`, `Chat response`, …
        default: The class if neither the code nor the text is known.
        kind: The class, whatever code and text are: those of plugins may say anything.
    """
    root_title, cause, suggestion = (_text(error, name) for name in ("rootTitle", "cause", "suggestion"))
    # Every field is optional, and the title has this default (docs/protocol.md#errors).
    title = _text(error, "title") or root_title or "Unknown error"
    display, data = _object(error, "displayData"), _object(error, "errorData")
    texts = _NAMED.sub(r"\1 \2\2", f"{title}\n{root_title}\n{cause}")
    kind = (
        kind
        or _BY_CODE.get(_text(display or {}, "code") or "")
        or next((kind for pattern, kind in _BY_TEXT if pattern.search(texts)), default)
    )
    # Written as by the official Python SDK, so that programs that match its texts keep working.
    header = title if root_title in {None, title} else f"{root_title}: {title}"
    details: dict[str, Any] = {
        "title": title,
        "root_title": root_title,
        "cause": cause,
        "display_data": display,
        "error_data": data,
    }
    if kind is LMStudioContextOverflowError:
        details |= _context_tokens(f"{title} {root_title} {cause}")
        if "used" in details:  # the server's own sentence is harder to read, and has no other information
            header, cause, suggestion = OVERFLOW.format(**details), None, None
    details["suggestion"] = suggestion
    tail = "".join(f"\n  {label}: {text}" for label, text in (("cause", cause), ("suggestion", suggestion)) if text)
    return kind(f"{label} error: {header}{tail}", **details)


_UNLOADED = {"generic.noModelMatchingQuery", "generic.identifierNotFound", "generic.specificModelUnloaded"}
"""Codes that mean: the requested instance is not loaded."""


def means_unloaded(error: LMStudioModelNotFoundError) -> bool:
    """Whether a not-found error is about the requested instance, and not about another model on the disk.

    A request may name a second model, such as the draft model.
    """
    code = (error.display_data or {}).get("code")
    # Without a code, the text decides: `Model "x" not found` means the requested instance, `Cannot find model "x"` a
    # model on the disk.
    return code in _UNLOADED if code else "cannot find" not in str(error).lower()


def means_taken(error: LMStudioServerError) -> bool:
    """Whether an explicit load was rejected because an instance has its identifier, or is being loaded under it."""
    return "already exists" in str(error)


def means_no_explicit_load(error: LMStudioServerError) -> bool:
    """Whether an explicit load was rejected, and a just-in-time load of the same model may succeed."""
    # Too little memory counts as well: unlike an explicit load, a just-in-time load evicts other models.
    denied = isinstance(error, LMStudioInsufficientResourcesError | LMStudioAuthenticationError)
    return denied or "permission" in str(error).lower()


def details_of(error: LMStudioServerError) -> dict[str, Any]:
    """Return the server's part of an error, as arguments of another error about the same failure."""
    names = ("title", "root_title", "cause", "suggestion", "display_data", "error_data")
    return {name: getattr(error, name) for name in names}


def _context_tokens(text: str) -> dict[str, int]:
    match = _NUMBERS.search(text)
    if not match:
        return {}
    *used, limit = (int(number) for number in match.groups() if number is not None)
    return {"used": used[0], "limit": limit} if used else {"limit": limit}


def _text(error: Mapping[str, Any], name: str) -> str | None:
    value = error.get(name)
    return redact_members(shortened(value)) if isinstance(value, str) and value else None


def _object(error: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = error.get(name)
    return value if is_object(value) else None


def copy_of(error: ErrorT) -> ErrorT:
    """Return a copy of an error, because each caller needs a traceback of its own; itself if it cannot be copied."""
    try:
        like = copy(error)
    except TypeError:  # its constructor needs other arguments than `args`
        return error
    like.__cause__ = error.__cause__
    return like
