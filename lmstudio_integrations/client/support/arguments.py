"""Check arguments from untyped callers, timeouts too: unknown or unusable ones are rejected before anything is sent."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from lmstudio_integrations._support.suggestions import explain_unknown_setting
from lmstudio_integrations._support.text import beginning, shown
from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_iterable, is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types._numbers import SECONDS, is_time, seconds_remedy
from lmstudio_integrations.types.timeouts import ModelTimeouts

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_NO_CALLBACKS = {"on_config_mismatch"}


def with_named_keywords(keywords: type, defaults: Mapping[str, Any]) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that lets `inspect` show the keywords of `**arguments: Unpack[keywords]` by name (PEP 362)."""

    def decorated(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        named = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
            for name, annotation in keywords.__annotations__.items()
        ]
        declared = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        vars(function)["__signature__"] = signature.replace(parameters=[*declared, *named])
        return function

    return decorated


def check_names(
    arguments: Mapping[str, Any],
    known: Collection[str],
    *,
    in_config: Collection[str] = (),
    async_callbacks: bool = False,
) -> None:
    """Reject unknown arguments, switches that are no booleans, and callbacks that cannot be called.

    Args:
        arguments: The arguments.
        known: The known names; the annotations of a `TypedDict` say which are switches.
        in_config: The settings of the argument `config`, if there is one.
        async_callbacks: Whether async callbacks are awaited.

    Raises:
        LMStudioValueError: If a name is unknown (the nearest known one is suggested), or a value is invalid.
    """
    for name, value in arguments.items():
        if is_mapping(known) and known.get(name) is bool:
            flag_of(value, name)
        if name not in known:
            remedy = explain_unknown_setting(name, list(known), places={"config": in_config})
            raise LMStudioValueError(f"unknown argument {name!r}; {remedy}")
    if arguments:
        check_callbacks(async_callbacks, **arguments)


def check_callbacks(awaited: bool = False, /, **arguments: Any) -> None:  # noqa: FBT001, FBT002 - the rest are names
    """Reject callbacks (`on_…`, `handle_…`) that cannot be called, or that are async and not awaited.

    Raises:
        LMStudioValueError: If there is one.
    """
    for name, value in arguments.items():
        is_callback = name.startswith(("on_", "handle_")) and name not in _NO_CALLBACKS
        if not is_callback or value is None:
            continue
        if not callable(value):
            raise LMStudioValueError(f"{name} must be a function, or None; got {value!r}")
        if not awaited and inspect.iscoroutinefunction(value):
            raise LMStudioValueError(f"{name} must be a function that is not async, or None; got {value!r}")


def checked_string(value: object, name: str) -> str:
    """Return an argument that must be a string.

    Raises:
        LMStudioValueError: If it is not.
    """
    if not isinstance(value, str):
        raise LMStudioValueError(f"{name} must be a string; got {value!r}")
    return value


def text_of(value: object, name: str, remedy: str = "") -> str:
    """Return an argument that must be a non-empty string; `remedy` is what helps if it is empty.

    Raises:
        LMStudioValueError: If it is not.
    """
    text = checked_string(value, name)
    if not text.strip():
        raise LMStudioValueError(f"{name} is empty{remedy and '; '}{remedy}")
    return text


def optional_text(value: object, name: str, remedy: str = "") -> str | None:
    """Return an argument that must be a non-empty string or `None`; see `text_of`.

    Raises:
        LMStudioValueError: If it is not.
    """
    return None if value is None else text_of(value, name, remedy)


def flag_of(value: object, name: str) -> bool:
    """Return an argument that must be `True` or `False`.

    Raises:
        LMStudioValueError: If it is not.
    """
    if not isinstance(value, bool):
        raise LMStudioValueError(f"{name} must be True or False; got {value!r}")
    return value


def seconds_of(value: object, name: str, *, or_zero: bool = False) -> float | None:
    """Return an argument that must be a positive number of seconds or `None`; `or_zero` allows 0 as well.

    Raises:
        LMStudioValueError: If it is not.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and (is_time(value) or (or_zero and value == 0)):
        return value
    required = f"0 or {SECONDS}" if or_zero else SECONDS
    raise LMStudioValueError(f"{name} must be {required}; got {shown(value)}; {seconds_remedy(name, value)}")


def whole_number(value: object, name: str, *, least: int = 1, most: int | None = None) -> int | None:
    """Return an argument that must be an integer from `least` to `most`, or `None`.

    Raises:
        LMStudioValueError: If it is not.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= (most or SAFE_INTEGER):
        is_small = most is None and not (isinstance(value, int) and value > SAFE_INTEGER)
        bounds = f"at least {least}" if is_small else f"between {least} and {most or SAFE_INTEGER}"
        raise LMStudioValueError(f"{name} must be {bounds}, or None; got {shown(value)}")
    return value


def list_of(value: object, name: str, *, of_texts: bool = False) -> list[Any]:
    """Return an argument that must be a list or another iterable; `of_texts` adds to the error how to list one text.

    Raises:
        LMStudioValueError: If it is not; a string is rejected, too.
    """
    if not is_iterable(value) or is_mapping(value) or isinstance(value, str | bytes):
        remedy = f"; write [{beginning(value)}]" if of_texts and isinstance(value, str) else ""
        raise LMStudioValueError(f"{name} must be a list; got {value!r}{remedy}")
    return list(value)


def texts_of(value: object, what: str) -> list[str]:
    """Return a list of texts.

    Raises:
        LMStudioValueError: If it contains anything but strings.
    """
    is_one = is_mapping(value) or isinstance(value, str | bytes)
    texts: list[Any] = [*value] if not is_one and is_iterable(value) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise LMStudioValueError(f"{what} must be a string or a list of strings, got {text!r}")
    return texts


TIMEOUTS: Timeouts = {name: field.default for name, field in ModelTimeouts.model_fields.items()}
"""The default timeouts in seconds."""


def checked_timeouts(parameters: Mapping[str, Any]) -> Timeouts:
    """Return the timeouts among keyword arguments.

    Raises:
        LMStudioValueError: If a timeout is not positive.
    """
    if TIMEOUTS.keys().isdisjoint(parameters):
        return {}
    return {name: seconds_of(parameters[name], name) for name in TIMEOUTS if name in parameters}
