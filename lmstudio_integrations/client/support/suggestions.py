"""What helps with an error of the server: a command, a setting, or the model that was meant.

The transport adds it to every error that a server sends (`error_with_suggestion`); the rest of the client adds what it
knows of a model. Pure. It runs on the thread that serves every call, so long names and lists are cut.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from shlex import quote
from typing import Any, TypeVar, get_args

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioEngineLostError,
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
)
from lmstudio_integrations.protocol.errors import OVERFLOW, to_exception
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.machines import LOCAL

_FORMAT = r"(?i)[.-](gguf|mlx|splash)$"
"""The end of a file's or a folder's name that is not part of the model's."""

_PROVIDER = "lmstudio:"
"""What `init_chat_model` takes in front of a name."""

_MOST_MEANT = 2
"""The most models that a suggestion names."""

NAME_A_MODEL = "name a model, which is then loaded on first use; `lmsi ls` lists those that are downloaded"
"""What helps if no model is loaded."""

SERVER_SETTINGS = "the server's settings (LM Studio: Developer > Server Settings; Bionic: Settings > Local Model API)"
"""Where the applications have them."""

_TWO_MODELS = 'see "Two chat models at once" in the guide to loading models'

KEEP_LOADED = (
    "load one of them with load_policy='explicit', which is never evicted (an instance that is loaded already stays as "
    "it was), or switch Auto-Evict off in "
    f"{SERVER_SETTINGS}; {_TWO_MODELS}"
)
"""What helps if the loads of two models evict each other."""

MAKE_ROOM = "load_policy='fit' unloads what must go for it, as far as that is not in use"
"""What helps if there is too little memory for a load."""

FIT_BOTH = f"`lmsi plan` shows which smaller context_length leaves room for both; {_TWO_MODELS}"
"""What helps if two models do not fit into the memory at once."""

_SAMPLE, _LONGEST_NAME = 20, 256
"""Names listed in a suggestion, and characters kept of each."""

ServerErrorT = TypeVar("ServerErrorT", bound=LMStudioServerError)

_LOG = "the server's log may say why: `lms log stream`"

NAME_A_PLUGIN = (
    "check the identifier: an MCP server of mcp.json has `mcp/` and its name in kebab case; if LM Studio requires a "
    f"token, check what that is allowed to do; {_LOG}"
)
"""What helps if a plugin cannot be started."""

_BY_CLASS: dict[type[LMStudioServerError], str] = {
    LMStudioInsufficientResourcesError: "set a smaller context_length, use a smaller model, or unload others",
    LMStudioModelCrashedError: f"the next call loads it again; set a smaller context_length if memory is short; {_LOG}",
    LMStudioEngineLostError: (
        f"the next call loads it again; if that fails as well, restart LM Studio or update its runtimes; {_LOG}"
    ),
    LMStudioModelLoadError: f"try a smaller context_length or another model; {_LOG}",
    LMStudioPromptTemplateError: "update the model, or change its prompt template in LM Studio's model settings",
}
"""Suggestions for errors about which the server gives none."""


def error_with_suggestion(
    error: Mapping[str, Any],
    label: str,
    default: type[LMStudioServerError] = LMStudioServerError,
    *,
    kind: type[LMStudioServerError] | None = None,
) -> LMStudioServerError:
    """Return the exception of an error on the wire, as `to_exception` does, with a suggestion."""
    exception = to_exception(error, label, default, kind=kind)
    if isinstance(exception, LMStudioContextOverflowError):
        suggestion: str | None = _shorten(exception.used)
    else:
        suggestion = _of_details(exception.display_data) or (
            None if exception.suggestion else _BY_CLASS.get(type(exception))
        )
    return exception if suggestion is None else add_suggestion(exception, suggestion)


def add_suggestion(error: ServerErrorT, suggestion: str) -> ServerErrorT:
    """Return an error with one more suggestion, in its message and in its attribute."""
    result = copy(error)
    before = error.suggestion
    # A server's own is a sentence, and ours are clauses.
    added = f"{'' if before.endswith('.') else ';'} {suggestion}" if before else suggestion
    result.suggestion = f"{before or ''}{added}"
    result.args = (redact(f"{error}{added}" if before else f"{error}\n  suggestion: {added}"),)
    return result


def for_unload(error: LMStudioModelNotFoundError) -> LMStudioModelNotFoundError:
    """Return the error about a model that is not loaded for who wants to unload it."""
    general = _of_details(error.display_data)
    if not general:
        return error
    loaded, _, _ = general.partition("; ")
    return _replaced(error, general, f"it is not loaded; {loaded}")


def for_devices(error: LMStudioModelNotFoundError, devices: Sequence[str]) -> LMStudioModelNotFoundError:
    """Return the error about a model that is not downloaded on one machine, if others of the server have it."""
    general, name = _of_details(error.display_data), devices[0]
    whose = "LM Studio's own machine" if name == LOCAL else f"the linked device {name!r}"
    exact = f"{whose} has it: pass device={name!r}"
    return _replaced(error, general, exact) if general else add_suggestion(error, exact)


def _replaced(error: ServerErrorT, general: str, exact: str) -> ServerErrorT:
    """Return an error with a suggestion that knows more in the place of another one."""
    result = copy(error)
    result.suggestion = error.suggestion and error.suggestion.replace(general, exact)
    result.args = (redact(str(error).replace(general, exact)),)
    return result


def with_window(
    error: LMStudioContextOverflowError, length: int | None, maximum: int | None
) -> LMStudioContextOverflowError:
    """Return a context overflow that knows the context window, and suggests nothing beyond it.

    Args:
        error: The error of the server.
        length: The context length of the instance, if it is known; the server's own number counts.
        maximum: The longest context length of the model, if it is known.
    """
    limit = error.limit or length
    result = _replaced(error, _shorten(error.used), _shorten(error.used, limit, maximum))
    result.limit = limit
    return result


def context_overflow(label: str, used: int, limit: int, maximum: int | None) -> LMStudioContextOverflowError:
    """Return the error of a prompt that this process has found not to fit into the context window.

    Args:
        label: What errors call the operation.
        used: Tokens of the prompt.
        limit: Context length of the loaded model.
        maximum: The longest context length of the model, if it is known.
    """
    title, suggestion = OVERFLOW.format(used=used, limit=limit), _shorten(used, limit, maximum)
    text = f"{label} error: {title}\n  suggestion: {suggestion}"
    return LMStudioContextOverflowError(text, used=used, limit=limit, title=title, suggestion=suggestion)


def _shorten(used: int | None, limit: int | None = None, maximum: int | None = None) -> str:
    """Return a suggestion for a prompt that is too long, with the power of two that leaves room for a response.

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
        "so unload it first, with client.llm.unload(KEY) or an adapter's unload()"
    )


def _of_details(display: Mapping[str, Any] | None) -> str | None:
    """Return a suggestion made of the machine-readable part of an error."""
    if display is None:
        return None
    code = display.get("code")
    suggest = _BY_CODE.get(code) if isinstance(code, str) else None
    try:
        return suggest(display) if suggest else None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        return None  # displayData is malformed; the error itself must still be raised


def _sample(names: object) -> list[str]:
    if not is_list(names):
        raise TypeError("the sample is not a list")
    return [_name(name) for name in names[:_SAMPLE]]


def _name(value: object) -> str:
    return str(value)[:_LONGEST_NAME]


def _not_loaded(display: Mapping[str, Any]) -> str | None:
    loaded, query = _sample(display["loadedModelsSample"]), display.get("query")
    name = (query.get("identifier") or query.get("path")) if is_object(query) else display.get("identifier")
    if not name:
        return None  # whoever looked for any model names one that the server has
    known = f"loaded are {', '.join(loaded)}" if loaded else "no model of this kind is loaded"
    return (
        f"{known}; load it with `{_command('load', str(name))}`, or set load_policy='get_or_load', which loads it on "
        "first use"
    )


def _no_path(display: Mapping[str, Any]) -> str:
    return _no_model(str(display["path"]), {each: each for each in _sample(display["availablePathsSample"])})


def with_keys(
    error: LMStudioModelNotFoundError,
    keys: Mapping[str, str],
    server: str,
    *,
    can_download: bool,
    elsewhere: str | None = None,
) -> LMStudioModelNotFoundError:
    """Return the error about a model that is not downloaded with what is known of the server.

    Args:
        error: The error of the server.
        keys: The keys of its models of this kind, by path.
        server: What people call it.
        can_download: Whether it downloads models.
        elsewhere: Another server, which has the model.
    """
    display = error.display_data or {}
    general = _of_details(display)
    if display.get("code") != "generic.pathNotFound" or not general:
        return error
    exact = _no_model(str(display["path"]), keys, f" on {server}", can_download=can_download)
    if elsewhere is not None:
        exact = f"the server at {elsewhere} has it: set {HOST_VARIABLE}={elsewhere} or pass its address; {exact}"
    return _replaced(error, general, exact)


def for_draft_model(error: ServerErrorT, name: str, keys: Mapping[str, str]) -> ServerErrorT:
    """Return the error about a draft model with the setting that names it, and the language models that there are.

    Args:
        error: The error of the server.
        name: The key of the draft model.
        keys: The keys of the language models of the server, by path.
    """
    return add_suggestion(
        error, f"draft_model={shown(name)} must name a language model; {_no_model(name, keys, can_download=False)}"
    )


def _no_model(name: str, keys: Mapping[str, str], where: str = "", *, can_download: bool = True) -> str:
    """Return what helps if a server has no model of a name, only those with these keys, by path."""
    if name.startswith(_PROVIDER):
        return f"leave out {_PROVIDER!r}, which only init_chat_model takes"
    get = f"download it with `{_command('get', name)}`" if can_download else ""
    meant = _closest_keys(name, keys)
    if meant:
        return f"Did you mean {' or '.join(map(repr, meant))}?{f' If not, {get}' if get else ''}"
    known = ", ".join(list(dict.fromkeys(map(_name, keys.values())))[:_SAMPLE])
    found = f"downloaded{where} are {known}" if known else f"no model of this kind is downloaded{where}"
    return f"{found}; {get}" if get else found


def _closest_keys(name: str, keys: Mapping[str, str]) -> list[str]:
    """Return the models of which a name, without its variant, is a part, the beginning or a misspelling."""
    models: dict[str, list[str]] = {}  # by each part of a path that people take for the name
    for path, key in keys.items():
        if key != name:
            for part in {path, key, key.partition("/")[2], *path.split("/")} - {""}:
                models.setdefault(re.sub(_FORMAT, "", part.lower()), []).append(key)
    lower = re.sub(_FORMAT, "", name.lower().partition("@")[0])
    begun = [part for part in models if part.startswith(lower)]
    parts = [lower] if lower in models else begun or closest_names(lower, models, cutoff=0.85)
    return list(dict.fromkeys(key for part in parts for key in models[part]))[:_MOST_MEANT]


def _command(verb: str, name: str) -> str:
    return f"lms {verb} {quote(_name(name))}"


def _preset(display: Mapping[str, Any]) -> str:
    presets = display["availablePresetsSample"]
    known = _sample(
        [preset["identifier"] for preset in presets[:_SAMPLE] if is_object(preset) and "identifier" in preset]
    )
    if not known:
        return "the server has no presets: save one in LM Studio, or pass the settings themselves"
    return f"available are {', '.join(known)}"


def _mismatch(display: Mapping[str, Any]) -> str | None:
    actual, expected = _name(display["actualDomain"]), _name(display["expectedDomain"])
    # For the other kinds, the caller knows which of its classes to use.
    return None if actual in _KINDS else f"{_name(display['path'])} is of kind {actual!r}, not {expected!r}"


_KINDS = get_args(ModelKind)

_BY_CODE: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "generic.noModelMatchingQuery": _not_loaded,
    "generic.identifierNotFound": _not_loaded,
    "generic.pathNotFound": _no_path,
    "generic.presetNotFound": _preset,
    "generic.domainMismatch": _mismatch,
}
