"""The base of every pydantic type: snake_case in Python, camelCase on the wire, lenient on input."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticSerializationError


class WireModel(BaseModel):
    """A value of the protocol.

    Reads both spellings and skips fields that it does not know, because servers grow faster than clients.
    Only what was set is written, under the wire's names; `None` counts as not set where the wire knows no null.
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
    """Fields whose null means something (protocol §0); every other one is absent instead."""

    def model_post_init(self, _context: Any, /) -> None:
        """Count fields without value as not set."""
        for name, value in self.__dict__.items():
            if value is None and name not in self.nullable:
                self.__pydantic_fields_set__.discard(name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the value from its wire form."""
        return cls.model_validate(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form: camelCase keys, only the fields that were set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def to_json(self) -> str:
        """Return the wire form as JSON text."""
        try:
            return self.model_dump_json(by_alias=True, exclude_unset=True)
        except PydanticSerializationError:  # a lone surrogate, which only an escape can carry
            return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def __str__(self) -> str:
        fields = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
        return f"{type(self).__name__}.from_dict({fields})"


class TaggedModel(WireModel):
    """A member of a union. Its tag (`type` or `role`) has a default and is written all the same."""

    def model_post_init(self, _context: Any, /) -> None:
        """Count the tag as set."""
        super().model_post_init(_context)
        self.__pydantic_fields_set__.update(_tags(type(self)))


@cache
def _tags(model: type[TaggedModel]) -> frozenset[str]:
    return frozenset({"type", "role"} & model.model_fields.keys())
