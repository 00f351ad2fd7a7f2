"""Types of settings whose value is a number, or `False` for off. The configs and the adapters' fields use them.

pydantic reads `True` as 1 and, where `False` is allowed, 0 as `False`. Here only the boolean `False` switches a setting
off, and no boolean is a number.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AllowInfNan, BeforeValidator, Discriminator, Field, Tag

ValueT = TypeVar("ValueT")
OR_FALSE = "value or False"
"""Follows the name of an `OrOff` setting in pydantic's errors."""


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - pydantic collects value errors
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), AllowInfNan(allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Count = Annotated[Int, Field(ge=1)]
Natural = Annotated[Int, Field(ge=0)]
LogProbs = Annotated[Int, Field(ge=0, le=100)]
TopK = Annotated[Int, Field(ge=-1, le=500)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0)]

OrOff = Annotated[
    Annotated[ValueT, Tag(OR_FALSE)] | Annotated[Literal[False], Tag("off")],
    Discriminator(lambda value: "off" if value is False else OR_FALSE),
]
"""A value, or `False` for off. A tag chooses before validation, so a wrong value is one error and is never off."""
