"""A small language of shapes of JSON values. Every object is closed: a field that is not listed is a finding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from typing_extensions import TypeIs


class Shape(Protocol):
    """What a value may be."""

    def check(self, value: object, path: str) -> Iterator[str]:
        """Yield what is wrong with a value."""
        ...


def is_integer(value: object) -> TypeIs[int]:
    """Whether a value is a JSON integer: `true` and `1.0` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a JSON number."""
    return is_integer(value) or isinstance(value, float)


@dataclass(frozen=True)
class JsonObject:
    """An object that a user passes through, such as a JSON schema."""

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object, is {value!r}"


@dataclass(frozen=True)
class Free:
    """Any value that JSON can express."""

    def check(self, value: object, path: str) -> Iterator[str]:
        yield from ()


@dataclass(frozen=True)
class Text:
    """Text, of limited length where a limit is given."""

    shortest: int = 0
    longest: int | None = None

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{path} must be text, is {value!r}"
        elif len(value) < self.shortest or (self.longest is not None and len(value) > self.longest):
            yield f"{path} has {len(value)} characters, allowed are {self.shortest} to {self.longest}"


@dataclass(frozen=True)
class Boolean:
    """True or false."""

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, bool):
            yield f"{path} must be true or false, is {value!r}"


@dataclass(frozen=True)
class Number:
    """A number within limits; a whole one, written without a point, where `whole` says so."""

    least: float = float("-inf")
    most: float = float("inf")
    whole: bool = False

    def check(self, value: object, path: str) -> Iterator[str]:
        if self.whole and not is_integer(value):
            yield f"{path} must be an integer, is {value!r}"
        elif not is_number(value):
            yield f"{path} must be a number, is {value!r}"
        elif not self.least <= float(str(value)) <= self.most:
            yield f"{path} must lie between {self.least} and {self.most}, is {value!r}"


def integer(least: float = float("-inf"), most: float = float("inf")) -> Number:
    """Return the shape of a whole number."""
    return Number(least, most, whole=True)


@dataclass(frozen=True)
class OneOf:
    """One of some texts or numbers."""

    values: tuple[str | int, ...]

    def check(self, value: object, path: str) -> Iterator[str]:
        if not any(type(value) is type(allowed) and value == allowed for allowed in self.values):
            yield f"{path} must be one of {', '.join(map(repr, self.values))}, is {value!r}"


def one_of(*values: str | int) -> OneOf:
    """Return the shape of an enumeration."""
    return OneOf(values)


@dataclass(frozen=True)
class Nullable:
    """One of the few things that may be null."""

    shape: Shape

    def check(self, value: object, path: str) -> Iterator[str]:
        if value is not None:
            yield from self.shape.check(value, path)


@dataclass(frozen=True)
class Array:
    """A list of like things."""

    of: Shape
    shortest: int = 0

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} must be a list, is {value!r}"
            return
        if len(value) < self.shortest:
            yield f"{path} must have at least {self.shortest} items"
        for index, item in enumerate(value):
            yield from self.of.check(item, f"{path}[{index}]")


@dataclass(frozen=True)
class Pair:
    """A list of two things, each of its own shape."""

    first: Shape
    second: Shape

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) != 2:
            yield f"{path} must be a list of two, is {value!r}"
            return
        yield from self.first.check(value[0], f"{path}[0]")
        yield from self.second.check(value[1], f"{path}[1]")


@dataclass(frozen=True)
class Object:
    """An object with these fields and no other; an optional field without value is absent, not null."""

    required: Mapping[str, Shape] = field(default_factory=dict[str, Shape])
    optional: Mapping[str, Shape] = field(default_factory=dict[str, Shape])

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object, is {value!r}"
            return
        known = {**self.required, **self.optional}
        for name in self.required:
            if name not in value:
                yield f"{path} lacks {name!r}"
        for name, member in value.items():
            if name not in known:
                yield f"{path} has the unknown field {name!r}; known are {', '.join(sorted(known))}"
            elif member is None and not isinstance(known[name], Nullable | Free):
                yield f"{path}.{name} is null; a key without value must be absent"
            else:
                yield from known[name].check(member, f"{path}.{name}")


@dataclass(frozen=True)
class Tagged:
    """An object whose shape depends on one of its fields."""

    tag: str
    shapes: Mapping[str, Object]

    def check(self, value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object, is {value!r}"
            return
        tag = value.get(self.tag)
        shape = self.shapes.get(tag) if isinstance(tag, str) else None
        if shape is None:
            yield f"{path}.{self.tag} must be one of {', '.join(self.shapes)}, is {tag!r}"
        else:
            yield from Object({self.tag: one_of(str(tag)), **shape.required}, shape.optional).check(value, path)


@dataclass(frozen=True)
class Either:
    """Any of several shapes; the findings are those of the last."""

    shapes: tuple[Shape, ...]

    def check(self, value: object, path: str) -> Iterator[str]:
        findings: list[str] = []
        for shape in self.shapes:
            findings = list(shape.check(value, path))
            if not findings:
                return
        yield from findings


TEXT: Shape = Text()
BOOLEAN: Shape = Boolean()
NUMBER: Shape = Number()
JSON_OBJECT: Shape = JsonObject()
FREE: Shape = Free()
