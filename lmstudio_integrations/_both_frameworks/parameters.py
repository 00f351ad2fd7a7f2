"""Types of constructor parameters that accept more than the field holds, for type checkers.

Type checkers take the type of a parameter from the `__set__` of the field's type, and the type of an attribute from its
`__get__`. Classes have such fields under `TYPE_CHECKING` only; at run time, the fields have plain types, and
`input_checks.normalize_input` converts what is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

from pydantic import SecretStr

AcceptedT_contra = TypeVar("AcceptedT_contra", contravariant=True)
HeldT_co = TypeVar("HeldT_co", covariant=True)

UNSET: Any = None
"""Default of these parameters: no value that they accept has their type."""


class Parameter(Protocol[AcceptedT_contra, HeldT_co]):
    """A parameter and attribute of two types: what the constructor and assignments accept, and what is read.

    A concrete adapter declares such a field again: pydantic's mypy plugin gives inherited ones the accepted type alone.
    """

    def __get__(self, instance: object, owner: Any, /) -> HeldT_co: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


class ParameterOnly(Protocol[AcceptedT_contra]):
    """Another name of a parameter. It is no attribute, so reading it from an object is an error."""

    def __get__(self, instance: None, owner: Any, /) -> NoReturn: ...
    def __set__(self, instance: object, value: AcceptedT_contra, /) -> None: ...


Secret = Parameter[SecretStr | str | Mapping[str, SecretStr] | Mapping[str, str] | None, SecretStr | None]
StopStrings = Parameter[str | Sequence[str] | None, list[str] | None]
