"""Explains what pydantic rejects: each wrong value by its name, in plain words, without pydantic's types and URLs.

`ExplainedModel` is the base of the classes that users make; the adapters explain calls and assignments as well.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, PydanticUserError, ValidationError
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import ErrorDetails

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.text import shown
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._numbers import OR_FALSE

ReturnT = TypeVar("ReturnT")
P = ParamSpec("P")

_TYPES = frozenset({"bool", "int", "float", "str", OR_FALSE})
"""Parts of locations that name the members of a union."""


def explained(make: Callable[P, ReturnT], /, *args: P.args, **kwargs: P.kwargs) -> ReturnT:
    """Return what a function of pydantic returns.

    Raises:
        LMStudioValueError: If it rejects the input.
    """
    try:
        return make(*args, **kwargs)
    except ValidationError as error:
        problems = without_secrets(error)
    raise LMStudioValueError(explain(problems))  # not in the `except` block: the error would keep pydantic's


def explain(error: ValidationError) -> str:
    """Return pydantic's errors as one clause per value: its name, the value, the reasons."""
    reasons: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or _is_name(part))
        is_missing = problem["type"] == "missing"
        value = f"{path}={shown(problem['input'])}" if path and not is_missing else path
        reasons.setdefault(value, []).append(_reason(problem))
    return "; ".join(
        ": ".join([*filter(None, [value]), ", or ".join(dict.fromkeys(texts))]) for value, texts in reasons.items()
    )


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return "must be given"
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        return "unknown" if to_camel(name) == to_snake(name) else "given in both spellings, or unknown"
    return problem["msg"].removeprefix("Value error, ") + (
        ", or False to switch it off" if OR_FALSE in problem["loc"] else ""
    )


def _is_name(part: str) -> bool:
    return part.isidentifier() and part not in _TYPES


def reason_of(error: BaseException) -> str:
    """Return what an exception says, which may be one of pydantic about a class or a value of the user."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
    return str(error.message) if isinstance(error, PydanticUserError) else str(error)


class ExplainedModel(BaseModel):
    """A class whose constructor raises one error of this package for all wrong values."""

    def __init__(self, /, **fields: Any) -> None:
        explained(super().__init__, **fields)

    # Pydantic builds nested values without this constructor, so its errors keep the location of the wrong value.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
