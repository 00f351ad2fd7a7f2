"""The base of the protocol's pydantic types: snake_case in Python, camelCase on the wire, lenient input."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._explained import ExplainedModel


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
