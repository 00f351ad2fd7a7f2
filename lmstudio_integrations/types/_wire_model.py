"""The bases of pydantic types: errors that explain wrong values, and the protocol's values.

Those are snake_case in Python and camelCase on the wire, and read leniently.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import explain
from lmstudio_integrations._support.text import dumps, shortened
from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError

logger: logging.Logger = logging.getLogger(__name__)

Path = tuple[int | str, ...]
"""Where a value is: the members and the positions that lead to it."""

WireInteger = Annotated[int, Field(gt=-SAFE_INTEGER, lt=SAFE_INTEGER)]
"""An integer of a server. One beyond what JSON's readers keep exactly is none; it may not even be divided."""

WireNumber = Annotated[int | float, Field(gt=-SAFE_INTEGER, lt=SAFE_INTEGER)]
"""A number of a server, within the same bounds, and so a finite one."""

ReturnT = TypeVar("ReturnT")
P = ParamSpec("P")


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


class ExplainedModel(BaseModel):
    """A class whose constructor raises one error of this package for all wrong values."""

    def __init__(self, /, **fields: Any) -> None:
        explained(super().__init__, **fields)

    # Pydantic builds nested values without this constructor, so its errors keep the location of the wrong value.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]


class WireModel(ExplainedModel):
    """A value of the protocol.

    Reads both spellings and ignores unknown fields, because servers are updated before clients. Writes only what was
    set, with the wire's names. `None` counts as unset, except in the fields of `nullable`. In `Settings`
    an explicit `None` is kept, so that `merged` can unset a setting; their `to_fields` leaves it out.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        defer_build=True,
        protected_namespaces=(),
    )

    nullable: ClassVar[frozenset[str]] = frozenset({"device_identifier"})
    """Fields in which the wire uses null; any other field is left out instead. The base names one of them:
    several types have it, and null is the server's own machine (`docs/protocol.md#model-specifiers`)."""

    def model_post_init(self, _context: Any, /) -> None:
        """Count fields that are `None` as unset."""
        # `model_copy(update=…)` does not run this: a `None` in an update would be written as null.
        for name, value in self.__dict__.items():
            if value is None and name not in self.nullable:
                self.__pydantic_fields_set__.discard(name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the value from its wire form."""
        return cls.model_validate(data)

    @classmethod
    def read(cls, data: object) -> Self:
        """Build the value from what a server sent, as far as that can be read.

        A member with a value of another form counts as left out, and so does what lacks a required member: an item of a
        list, or a member.

        Raises:
            ValidationError: If it lacks a required member itself.
        """
        while True:
            try:
                return cls.model_validate(data)
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False, include_input=False)
                paths = {_existing(data, problem["loc"]) for problem in problems}
                if () in paths:
                    raise
            logger.debug("ignored %s of a %s", shortened(str(sorted(map(str, paths)))), cls.__name__)
            data = _without(data, paths)

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form: camelCase keys, only the fields that were set.

        Raises:
            LMStudioValueError: If a value cannot be written as JSON.
        """
        try:
            return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        except ValueError:  # often a lone surrogate in a name
            pass
        try:
            fields: dict[str, Any] = json.loads(dumps(self.model_dump(by_alias=True, exclude_unset=True)))
        except (ValueError, TypeError, RecursionError) as error:
            raise LMStudioValueError(f"{type(self).__name__} cannot be written as JSON: {error}") from error
        return fields

    def to_json(self) -> str:
        """Return the wire form as JSON text.

        Raises:
            LMStudioValueError: If a value cannot be written as JSON.
        """
        try:
            return self.model_dump_json(by_alias=True, exclude_unset=True)
        except ValueError:  # often a lone surrogate
            return dumps(self.to_dict())

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what `repr` shows: only the fields that were set."""
        for name, value in super().__repr_args__():
            if value is not None or name in self.model_fields_set:
                yield name, value

    def __str__(self) -> str:
        fields = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
        return f"{type(self).__name__}.from_dict({fields})"


class TaggedModel(WireModel):
    """A member of a union. Its tag (`type` or `role`) is always written, even with its default value."""

    def model_post_init(self, _context: Any, /) -> None:
        """Count the tag as set."""
        super().model_post_init(_context)
        self.__pydantic_fields_set__.update(_tags(type(self)))


@cache
def _tags(model: type[TaggedModel]) -> frozenset[str]:
    return frozenset({"type", "role"} & model.model_fields.keys())


def _existing(value: object, location: Path) -> Path:
    """Return the part of a location that exists: it may end in a member that is missing, or in the name of a type."""
    for depth, part in enumerate(location):
        value = _member(value, part)
        if value is _MISSING:
            return location[:depth]
    return location


_MISSING = object()


def _member(value: object, part: int | str) -> object:
    if isinstance(part, str):
        return value.get(part, _MISSING) if is_object(value) else _MISSING
    return value[part] if is_list(value) else _MISSING


def _without(value: Any, paths: Collection[Path]) -> Any:
    """Return a copy of a value without what is at some paths."""
    below: dict[int | str, list[Path]] = {}
    for first, *rest in paths:
        below.setdefault(first, []).append(tuple(rest))
    kept = [
        (key, _without(each, below[key]) if key in below else each)
        for key, each in (value.items() if is_object(value) else enumerate(value))
        if () not in below.get(key, ())
    ]
    return dict(kept) if is_object(value) else [each for _, each in kept]
