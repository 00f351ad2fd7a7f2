"""Types of settings whose value is a number, a number for each token, or `False` for off.

The configs and the adapters' fields use them.
pydantic reads `True` as 1 and, where `False` is allowed, 0 as `False`. Here only the boolean `False` switches a setting
off, and no boolean is a number. The error about a text such as "5m", "8k" or "50%" contains the number to write.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AllowInfNan, BeforeValidator, Discriminator, Field, PlainSerializer, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

from lmstudio_integrations._support.suggestions import OR_FALSE
from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_count, is_list, is_mapping, is_number

ValueT = TypeVar("ValueT")
"""Follows the name of an `OrOff` setting in pydantic's errors."""

SECONDS = "a positive number of seconds, or None"

_WITH_UNIT = r"\s*(\d{1,12}(?:\.\d{1,12})?)\s*([a-zA-Z%]{1,12})\s*"
_SECONDS_PER = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_TIMES = {"k": 1024.0, "%": 0.01}
_EXAMPLES = {"ttl": "300; under load_policy='explicit', ttl=math.inf keeps the model loaded"}
"""What makes sense, where it is not 30 seconds."""


def seconds_remedy(name: str, value: object) -> str:
    """Return what to write for a value that is no positive number of seconds."""
    if (pair := _pair(name, value)) is not None:
        return f"write connect_timeout={pair[0]}, idle_timeout={pair[1]}"
    if isinstance(value, timedelta):
        seconds: Any = value.total_seconds()
    else:
        seconds = getattr(value, "read", None) or _converted(value, _SECONDS_PER)  # `read` is that of an httpx.Timeout
    return f"write {name}={seconds:.12g}" if seconds else f"for example {name}={_EXAMPLES.get(name, 30)}"


def _pair(name: str, value: object) -> Sequence[object] | None:
    """Return two timeouts in one, as `requests` and others take them: to connect, and to wait for data."""
    pair = cast("Sequence[object]", value) if isinstance(value, tuple | list) else ()
    return pair if name.endswith("timeout") and len(pair) == 2 else None


def is_time(value: float) -> bool:
    """Whether a number is a positive one of seconds. Larger ones than a `float` can hold are none."""
    try:
        return float(value) > 0
    except OverflowError:
        return False


def _converted(value: object, factors: Mapping[str, float]) -> float | None:
    """Return the number that a text with a unit means, such as "5m"; `None` for anything else."""
    match = re.fullmatch(_WITH_UNIT, value) if isinstance(value, str) else None
    factor = factors.get(match[2].lower()) if match else None
    return None if match is None or factor is None else float(match[1]) * factor


def _number(value: object, info: ValidationInfo) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - pydantic collects value errors
    converted = _converted(value, _TIMES)
    if converted is not None:
        remedy = f"write {info.field_name}={converted:.12g}"
        raise PydanticCustomError("number", "must be a number without a unit; {remedy}", {"remedy": remedy})
    return value


def _integer(value: object, info: ValidationInfo) -> object:
    number = _number(value, info)
    if _is_too_large(number):
        raise PydanticCustomError("integer", "must be an integer of less than 2**53 in size")
    return number


def _is_too_large(number: Any) -> bool:
    """Whether the server, which is written in JavaScript, cannot tell a number from those beside it."""
    try:
        return abs(float(number)) >= SAFE_INTEGER
    except OverflowError:
        return True
    except (TypeError, ValueError):  # it is none
        return False


def _seconds(value: object, info: ValidationInfo) -> object:
    number = parsed_number(_number(value, info))
    if (
        isinstance(number, timedelta | str | tuple | list)
        or hasattr(value, "read")
        or (isinstance(number, int | float) and not is_time(number))
    ):
        name = str(info.field_name)
        pair = _pair(name, value)
        timeouts = pair and f"{{'connect_timeout': {pair[0]}, 'idle_timeout': {pair[1]}}}"
        remedy = f"write timeouts={timeouts}" if timeouts else seconds_remedy(name, value)
        raise PydanticCustomError("seconds", "must be {required}; {remedy}", {"required": SECONDS, "remedy": remedy})
    return number


def parsed_number(value: object) -> object:
    """Return the number that a string is, as JSON and variables of the environment have it; anything else stays."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


Int = Annotated[int, BeforeValidator(_integer)]
Float = Annotated[float, BeforeValidator(_number), AllowInfNan(allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Count = Annotated[Int, Field(ge=1)]
Natural = Annotated[Int, Field(ge=0)]
Seed = Annotated[Int, Field(ge=-1)]
LogProbs = Annotated[Int, Field(ge=0, le=100)]
TopK = Annotated[Int, Field(ge=-1, le=500)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]

OrOff = Annotated[
    Annotated[ValueT, Tag(OR_FALSE)] | Annotated[Literal[False], Tag("off")],
    Discriminator(lambda value: "off" if value is False else OR_FALSE),
]
"""A value, or `False` for off. A tag chooses before validation, so a wrong value is one error and is never off."""


# Biases by token ------------------------------------------------------------------------------------------------------
# The wire and JSON have pairs: JSON has no numbers as keys and no infinity, so a dict would come back with other keys
# and without its values.

FORBIDDEN = "-inf"
"""How the wire writes negative infinity: the token is never generated."""


def to_pairs(bias: Mapping[int | str, float]) -> list[Any]:
    """Return biases as the pairs of the wire (docs/protocol.md#value-encodings)."""
    return [[token, FORBIDDEN if number == -math.inf else number] for token, number in bias.items()]


def _from_pairs(value: object) -> object:
    """Return biases as a dict, from a dict or from pairs.

    Raises:
        ValueError: If a token is neither an id nor a text, or a bias is no number.
    """
    if not (is_mapping(value) or is_list(value)):
        return value
    pairs: Iterable[object] = value.items() if is_mapping(value) else value
    by_token: dict[int | str, float] = {}
    for pair in pairs:
        members = cast("tuple[object, ...]", pair) if isinstance(pair, tuple | list) else ()
        if len(members) != 2:
            raise ValueError("must be a dict of biases by token")
        token, bias = members
        if not (isinstance(token, str) or is_count(token)):
            raise ValueError(f"{token!r} is no token; name it by its id, or by its text")
        number = -math.inf if bias == FORBIDDEN else bias
        if not (is_number(number) or number == -math.inf):
            raise ValueError(f"the bias of {token!r} must be a number, or float('-inf') to forbid it")
        by_token[token] = cast("float", number)
    return by_token


LogitBias = Annotated[
    dict[int | str, Annotated[float, AllowInfNan(allow_inf_nan=True)]],
    BeforeValidator(_from_pairs),
    PlainSerializer(to_pairs, return_type=list[Any]),
]
