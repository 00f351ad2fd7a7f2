"""Types of settings whose value is a number, or is off; shared by the native settings and the adapters' fields.

pydantic would take `True` for 1 and, where `False` is allowed, 0 for `False`. Here a number stays a number: only the
boolean `False` switches a setting off, and no boolean stands for a number.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AllowInfNan, BeforeValidator, Discriminator, Field, Tag

ValueT = TypeVar("ValueT")
OR_FALSE = "value or False"
"""Stands after the name of an `OrOff` in pydantic's errors."""


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not a truth value")  # noqa: TRY004 - pydantic collects value errors
    return value


def _tag(value: object) -> str:
    return "off" if value is False else OR_FALSE


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), AllowInfNan(allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Count = Annotated[Int, Field(ge=1)]
Natural = Annotated[Int, Field(ge=0)]
LogProbs = Annotated[Int, Field(ge=0, le=100)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0)]

OrOff = Annotated[Annotated[ValueT, Tag(OR_FALSE)] | Annotated[Literal[False], Tag("off")], Discriminator(_tag)]
"""A value, or `False` for off. The choice is made before validation, so a wrong value is one error and never off."""
