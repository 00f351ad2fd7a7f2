"""Errors on the wire to exceptions: by code first, then by known texts of the server (docs/protocol.md#errors).

This runs on the thread that serves every call, so the work on one error is bounded: long texts are cut first, and
each pattern needs time linear in the text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from shlex import quote
from typing import Any, TypeVar, get_args

from lmstudio_integrations._support.shortening import shortened
from lmstudio_integrations._support.suggestions import near
from lmstudio_integrations._support.typeguards import is_list, is_object
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
from lmstudio_integrations.types.config import ModelKind

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
        (r"model is not (embedding|llm)|not an? (embedding|llm)", LMStudioWrongModelKindError),
        (r"model (is|was|has been) unloaded|model unloaded", LMStudioModelUnloadedError),
        (r"insufficient system resources", LMStudioInsufficientResourcesError),
        (r"model has crashed", LMStudioModelCrashedError),
        (r"jinja|prompt template", LMStudioPromptTemplateError),
        (r"does not support (images|vision)", LMStudioUnsupportedError),
        (r"failed to parse tool call", LMStudioToolCallError),
        (r"failed to load|load-error|error loading model|no lm runtime found", LMStudioModelLoadError),
        (r"'type' must be a string", LMStudioStructuredOutputError),
        (r"prediction-error|iterating prediction stream|generation failed|channel error", LMStudioPredictionError),
        (r"api token|api key", LMStudioAuthenticationError),
    )
)

_NUMBERS = re.compile(
    r"first (\d{1,12}) tokens.{0,200}?length of only (\d{1,12})|n_keep \(?(\d{1,12})\)? >= n_ctx \(?(\d{1,12})\)?"
    r"|request \((\d{1,12}) tokens\) exceeds the available context size \((\d{1,12}) tokens\)",
    re.DOTALL,
)

_DIGITS = re.compile(r"\d+")
_FORMAT = re.compile(r"[.-](gguf|mlx)$", re.IGNORECASE)
"""The end of a file's or a folder's name that is not part of the model's."""

_EMULATED_PUBLISHERS = {"local", "scripted"}
"""The first parts of the emulator's paths of models without a publisher. The rest is the key, unless it is a file."""

_MOST_MEANT = 2
"""The most models that a suggestion names."""

ServerErrorT = TypeVar("ServerErrorT", bound=LMStudioServerError)

NAME_A_MODEL = "name a model, which is then loaded on first use; `lmsi ls` lists those that are downloaded"
"""What helps if no model is loaded."""

_SAMPLE, _LONGEST_NAME = 20, 256
"""Names listed in a suggestion, and characters kept of each."""


def error_object(value: object) -> Mapping[str, Any]:
    """Return an error on the wire as the object that it should be; a mere string is taken as the title."""
    if is_object(value):
        return value
    return {"title": value} if isinstance(value, str) else {}


def to_exception(
    error: Mapping[str, Any], operation: str, default: type[LMStudioServerError] = LMStudioServerError
) -> LMStudioServerError:
    """Return the exception of an error on the wire.

    Args:
        error: The error object; every field of it is optional and may have any type.
        operation: The operation that failed, for the message: `RPC`, `Model load`, `Chat response`, …
        default: The class if neither the code nor the text is known.
    """
    root_title, cause, suggestion = (_text(error, name) for name in ("rootTitle", "cause", "suggestion"))
    # Every field is optional, and the title has this default (docs/protocol.md#errors).
    title = _text(error, "title") or root_title or "Unknown error"
    display, data = _object(error, "displayData"), _object(error, "errorData")
    texts = f"{title}\n{root_title}\n{cause}"
    kind = _BY_CODE.get(_text(display or {}, "code") or "") or next(
        (kind for pattern, kind in _BY_TEXT if pattern.search(texts)), default
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
    own_advice = _advice(display)
    if kind is LMStudioContextOverflowError:
        details |= _context_tokens(f"{title} {cause}")
        own_advice = _shorten(details.get("used"))
        if "used" in details:  # the server's own sentence is harder to read, and has no other information
            header, cause, suggestion = _OVERFLOW.format(**details), None, None
    advice = " ".join(text for text in (suggestion, own_advice) if text) or _ADVICE_BY_CLASS.get(kind)
    details["suggestion"] = advice
    tail = "".join(f"\n  {label}: {text}" for label, text in (("cause", cause), ("suggestion", advice)) if text)
    return kind(f"{operation} error: {header}{tail}", **details)


def with_advice(error: ServerErrorT, advice: str) -> ServerErrorT:
    """Return an error with advice added to its message and to its suggestion."""
    advised = copy(error)
    advised.suggestion = " ".join(text for text in (error.suggestion, advice) if text)
    advised.args = (f"{error} {advice}" if error.suggestion else f"{error}\n  suggestion: {advice}",)
    return advised


def with_window(
    error: LMStudioContextOverflowError, length: int | None, maximum: int | None
) -> LMStudioContextOverflowError:
    """Return a context overflow that knows the context window, and advises nothing beyond it.

    Args:
        error: The error of the server.
        length: The context length of the instance, if it is known; the server's own number counts.
        maximum: The longest context length of the model, if it is known.
    """
    advised = copy(error)
    advised.limit = error.limit or length
    general, exact = _shorten(error.used), _shorten(error.used, advised.limit, maximum)
    advised.suggestion = error.suggestion and error.suggestion.replace(general, exact)
    advised.args = (str(error).replace(general, exact),)
    return advised


def context_overflow(operation: str, used: int, limit: int, maximum: int | None) -> LMStudioContextOverflowError:
    """Return the error of a prompt that this process has found not to fit into the context window.

    Args:
        operation: The operation, for the message.
        used: Tokens of the prompt.
        limit: Context length of the loaded model.
        maximum: The longest context length of the model, if it is known.
    """
    title, advice = _OVERFLOW.format(used=used, limit=limit), _shorten(used, limit, maximum)
    text = f"{operation} error: {title}\n  suggestion: {advice}"
    return LMStudioContextOverflowError(text, used=used, limit=limit, title=title, suggestion=advice)


def details_of(error: LMStudioServerError) -> dict[str, Any]:
    """Return the server's part of an error, as arguments of another error about the same failure."""
    names = ("title", "root_title", "cause", "suggestion", "display_data", "error_data")
    return {name: getattr(error, name) for name in names}


def _advice(display: Mapping[str, Any] | None) -> str | None:
    """Return advice made of the machine-readable part of an error."""
    if display is None:
        return None
    advise = _ADVICE.get(_text(display, "code") or "")
    try:
        return advise(display) if advise else None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        return None  # displayData is malformed; the error itself must still be raised


def _sample(names: object) -> list[str]:
    if not is_list(names):
        raise TypeError("the sample is not a list")
    return [_name(name) for name in names[:_SAMPLE]]


def _name(value: object) -> str:
    return str(value)[:_LONGEST_NAME]


def _not_loaded(display: Mapping[str, Any]) -> str:
    loaded, query = _sample(display["loadedModelsSample"]), display.get("query")
    name = (query.get("identifier") or query.get("path")) if is_object(query) else display.get("identifier")
    if not name:
        return NAME_A_MODEL
    known = f"loaded are {', '.join(loaded)}" if loaded else "no model of this kind is loaded"
    return (
        f"{known}; load it with `{_command('load', str(name))}`, or set load_policy='get_or_load', which loads it on "
        "first use"
    )


def _no_path(display: Mapping[str, Any]) -> str:
    path, downloaded = str(display["path"]), _sample(display["availablePathsSample"])
    get = f"download it with `{_command('get', path)}`"
    meant = _meant(path, downloaded)
    if meant:
        return f"Did you mean {' or '.join(map(repr, meant))}? If not, {get}"
    known = ", ".join(dict.fromkeys(map(_key, downloaded)))
    return f"{f'downloaded are {known}' if known else 'no model of this kind is downloaded'}; {get}"


def _meant(name: str, downloaded: Sequence[str]) -> list[str]:
    """Return the models of which a name is a part, a misspelling or the beginning, as they can be typed."""
    lower = name.lower()
    models: dict[str, list[str]] = {}  # by each part of a path that people take for the name
    for path in downloaded:
        key = _key(path)
        if key != name:
            for part in _parts(path):
                models.setdefault(part.lower(), []).append(key)
    misspelled = _misspelled(lower, models)
    beginning = dict.fromkeys(key for part, keys in models.items() if part.startswith(lower) for key in keys)
    return models.get(lower, misspelled)[:_MOST_MEANT] or (list(beginning) if len(beginning) <= _MOST_MEANT else [])


def _key(path: str) -> str:
    """Return what to type for a path: the path itself, without a publisher that only the emulator adds."""
    publisher, _, key = path.partition("/")
    return key if key and publisher in _EMULATED_PUBLISHERS and not _FORMAT.search(key) else path


def _parts(path: str) -> set[str]:
    """Return a path, what to type for it, and what follows its publisher: folders and file, without their formats."""
    key = _key(path)
    segments = key.split("/")[key.count("/") > 0 :]
    return {path, key, *segments, *(_FORMAT.sub("", segment) for segment in segments)}


def _misspelled(lower: str, models: Mapping[str, list[str]]) -> list[str]:
    """Return the models of which a name is a misspelling: nearly the same letters, and the same numbers.

    Models of one family often differ in a number only, such as `gemma-3-4b` and `gemma-3-27b`.
    """
    numbers = _DIGITS.findall(lower)
    similar = near(lower, [part for part in models if _DIGITS.findall(part) == numbers], cutoff=0.85)
    return models[similar[0]] if similar else []


def _command(verb: str, name: str) -> str:
    return f"lmsi {verb} {quote(_name(name))}"


def _preset(display: Mapping[str, Any]) -> str:
    presets = display["availablePresetsSample"]
    known = _sample([preset["identifier"] for preset in presets[:_SAMPLE]])
    if not known:
        return "the server has no presets: save one in LM Studio, or pass the settings themselves"
    return f"available are {', '.join(known)}"


def _mismatch(display: Mapping[str, Any]) -> str | None:
    actual, expected = _name(display["actualDomain"]), _name(display["expectedDomain"])
    # For the other kinds, the caller knows which of its classes to use.
    return None if actual in _KINDS else f"{_name(display['path'])} is of kind {actual!r}, not {expected!r}"


_KINDS = get_args(ModelKind)

_ADVICE: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "generic.noModelMatchingQuery": _not_loaded,
    "generic.identifierNotFound": _not_loaded,
    "generic.pathNotFound": _no_path,
    "generic.presetNotFound": _preset,
    "generic.domainMismatch": _mismatch,
}


def _context_tokens(text: str) -> dict[str, int]:
    found = _NUMBERS.search(text)
    if not found:
        return {}
    used, limit = (int(number) for number in found.groups() if number is not None)
    return {"used": used, "limit": limit}


_LOG = "the server's log may say why: `lms log stream`"

_ADVICE_BY_CLASS: dict[type[LMStudioServerError], str] = {
    LMStudioInsufficientResourcesError: "unload other models with `lmsi unload --all`, set a smaller context_length, "
    "or use a smaller model",
    LMStudioModelCrashedError: f"the next call loads it again; set a smaller context_length if memory is short; {_LOG}",
    LMStudioModelLoadError: f"try a smaller context_length or another model; {_LOG}",
    LMStudioPromptTemplateError: "update the model, or change its prompt template in LM Studio's model settings",
}
"""Advice for errors about which the server gives none."""

_OVERFLOW = "the prompt has {used} tokens, and the model is loaded with a context length of {limit}"


def _shorten(used: int | None, limit: int | None = None, maximum: int | None = None) -> str:
    """Return advice for a prompt that is too long, with the power of two that leaves room for a response.

    Args:
        used: Tokens of the prompt, if known.
        limit: Context length of the loaded model, if known.
        maximum: The longest context length of the model, if known.
    """
    if maximum is not None and max(used or 0, limit or 0) >= maximum:
        return f"shorten the prompt: this model takes at most {maximum} tokens"
    enough = 1 << (used + used // 4).bit_length() if used else maximum
    length = "" if enough is None else f"={enough if maximum is None else min(enough, maximum)}"
    return (
        f"shorten the prompt, or load the model with context_length{length}; a loaded model keeps its context length, "
        "so unload it first with `lmsi unload`"
    )


def _text(error: Mapping[str, Any], name: str) -> str | None:
    value = error.get(name)
    return shortened(value) if isinstance(value, str) and value else None


def _object(error: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = error.get(name)
    return value if is_object(value) else None
