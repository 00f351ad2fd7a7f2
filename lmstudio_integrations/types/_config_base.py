"""The base of the configs: translates fields to wire keys and back, and explains wrong input.

The fields, with their keys, are in `config.py`. How values are encoded: `docs/protocol.md#value-encodings`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel, to_snake

from lmstudio_integrations._support.suggestions import explain_unknown_setting
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import MOST_LEVELS, is_mapping, is_object, is_too_deep
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._wire_model import WireModel


def _in_camel_case(value: object) -> object:
    """Return a dict with its keys in camelCase, except below `jsonSchema`: the names there are the user's data."""
    if not is_mapping(value):
        return value
    spelled = {
        to_camel(name) if isinstance(name, str) and "_" in name else name: member for name, member in value.items()
    }
    return {name: member if name == "jsonSchema" else _in_camel_case(member) for name, member in spelled.items()}


WireDict = Annotated[dict[str, Any], BeforeValidator(_in_camel_case)]
"""A wire object that people may write in snake_case."""
NonEmpty = Annotated[str, Field(min_length=1)]


def checked(value: Any) -> dict[str, Any]:
    """Return the wire form of a checkbox that is on."""
    return {"checked": True, "value": value}


def unchecked(value: Any) -> dict[str, Any]:
    """Return the wire form of a checkbox that is off."""
    return {"checked": False, "value": value}


@dataclass(frozen=True, slots=True)
class WireKey:
    """The wire key of a setting, and all that depends on which setting it is.

    Attributes:
        key: The key. One that begins with a dot follows the `prefix` of the config.
        checkbox: Whether the value is sent as `{"checked": true, "value": …}`.
        off: What is sent for `False`, which switches the setting off: alone, or as the value that even an unchecked
            checkbox must have. `None` if it cannot be off.
        copies: Other keys, such as those of other engines, that are sent with the same value.
        wire_form: Converts a value that is sent in another form; the field's own validator reads that form.
        default: LM Studio's default in wire form, which the emulator reports. `None` if it reports none.
        attribute: The attribute of spans that shows the value (`client/telemetry.py`), and its type.
        changes: How the setting changes the probabilities of tokens, if `False` stops that: a `filter` drops tokens, a
            `penalty` counts earlier ones. Requests that must not have it switch all of a kind off; see `switched_off`.
    """

    key: str
    checkbox: bool = False
    off: Any = None
    copies: tuple[str, ...] = ()
    wire_form: Callable[[Any], Any] | None = None
    default: Any = None
    attribute: tuple[str, Callable[[Any], Any]] | None = None
    changes: Literal["filter", "penalty"] | None = None

    def encode(self, value: Any) -> Any:
        """Return the wire form of a value."""
        if self.wire_form is not None:
            return self.wire_form(value)
        is_off = value is False and self.off is not None
        sent = self.off if is_off else value
        return {"checked": not is_off, "value": sent} if self.checkbox else sent

    def decode(self, value: Any) -> Any:
        """Return the value of a wire form; `None` for a checkbox that is off."""
        if self.checkbox and is_object(value):
            # The official Python SDK sends {"checked": true, "value": false} for off.
            return value.get("value") if value.get("checked") and value.get("value") is not False else None
        return value


class StrictInput(WireModel):
    """A value that people write by hand. An unknown name is an error that suggests the nearest known one."""

    model_config: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False, extra="forbid")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except LMStudioValueError as error:
            problem = error
        except RecursionError:
            deep = ", ".join(name for name, value in fields.items() if is_too_deep(value))
            raise LMStudioValueError(f"{deep} is nested more than {MOST_LEVELS} levels deep") from None
        else:
            return
        self._reject_unknown_names(fields)
        raise problem

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the value from a dict with either spelling.

        Raises:
            LMStudioValueError: If a name is unknown (the nearest known one is suggested), or a value is invalid.
        """
        fields: object = data
        if not is_mapping(fields):
            raise LMStudioValueError(f"expected a {cls.__name__} or a dict, got {data!r}")
        cls._reject_unknown_names(fields)  # first, because a name that is no string could not be passed on
        return cls(**fields)

    @classmethod
    def _reject_unknown_names(cls, fields: Mapping[str, Any]) -> None:
        reject_unknown_names(fields, cls)


class Settings(StrictInput):
    """A config: all settings are optional, and only those that are set are sent."""

    def model_post_init(self, _context: Any, /) -> None:
        """Keep an explicit `None`: it unsets the setting of another config in `merged`."""

    prefix: ClassVar[str] = ""
    """The beginning of the wire keys that differ between the kinds of model."""

    raw: Annotated[
        dict[str, Any] | None,
        Field(description="Settings that have no name here, by their full wire keys. Named settings take precedence."),
    ] = None

    @classmethod
    def parse(cls, value: Self | Mapping[str, Any] | None, name: str = "config") -> Self:
        """Accept an instance, a dict with either spelling, or nothing. `name` is what an error calls it.

        Raises:
            LMStudioValueError: If a name is unknown (the nearest known one is suggested), a value is invalid, or
                settings contradict each other.
        """
        if value is None:
            settings = cls()
        elif isinstance(value, cls):
            settings = value
        elif is_mapping(value):
            settings = cls.from_dict(value)
        else:
            raise LMStudioValueError(f"{name} must be a {cls.__name__} or a dict; got {shown(value)}")
        settings.check_together()
        return settings

    def check_together(self) -> None:
        """Reject settings that contradict each other.

        Raises:
            LMStudioValueError: If two of them exclude each other, or one needs another.
        """

    def merged(self, other: Self) -> Self:
        """Return a config in which the settings of `other` override these; an explicit `None` unsets."""
        merged = {name: getattr(config, name) for config in (self, other) for name in config.model_fields_set}
        if self.raw and other.raw:
            merged["raw"] = {**self.raw, **other.raw}
        return type(self)(**merged)

    def to_fields(self) -> dict[str, Any]:
        """Return the wire fields of the settings that are set. The named settings override `raw`."""
        if not self.model_fields_set:
            return {}
        fields = dict(self.raw or {})
        for name, wire_key in wire_keys(type(self)).items():
            value = getattr(self, name)
            if value is not None:
                fields[wire_key.key] = sent = wire_key.encode(value)
                for key in wire_key.copies:
                    fields[key] = sent
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read wire fields.

        An unchecked checkbox counts as unset, and so does a value that does not validate: servers may be newer than
        this client. Keys without a field are kept in `raw`. Settings that have no effect beside others are left out.
        """
        return cls(**cls._in_effect(cls._values_of(fields)))

    @classmethod
    def describe(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return wire fields as a dict in camelCase, without loss.

        An unchecked checkbox is `False`. Values that do not validate are kept in `raw`.
        """
        settings = cls(**cls._values_of(fields))
        described = settings.to_dict()
        for name, wire_key in wire_keys(cls).items():
            if name in settings.model_fields_set:
                continue
            for key in (wire_key.key, *wire_key.copies):
                if key not in fields:
                    continue
                if wire_key.checkbox and wire_key.decode(fields[key]) is None:
                    described[str(cls.model_fields[name].alias)] = False
                else:
                    described.setdefault("raw", {})[key] = fields[key]
        return described

    @classmethod
    def _values_of(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in wire fields by their names, and the other fields as `raw`."""
        rest = dict(fields)
        values = cls._pop_values(rest)
        return {**values, "raw": rest} if rest else values

    @classmethod
    def _in_effect(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return settings by their names without those that have no effect beside the others."""
        return values

    @classmethod
    def _pop_values(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Pop the wire fields that are settings here, and return their values by name.

        Of a setting with copies, the first key that is there counts; a copy with another value stays in the fields.
        """
        values: dict[str, Any] = {}
        for name, wire_key in wire_keys(cls).items():
            key = wire_key.key
            for copy in wire_key.copies:
                if key not in fields:
                    key = copy
                elif copy in fields and fields[copy] == fields[key]:
                    del fields[copy]
            if key in fields:
                value = wire_key.decode(fields.pop(key))
                if value is not None:
                    with suppress(LMStudioValueError):  # a value that does not validate counts as unset
                        cls(**{name: value})
                        values[name] = value
        return values


def reject_unknown_names(fields: Mapping[str, Any], model: type[WireModel]) -> None:
    """Reject names that are no fields of a model.

    Raises:
        LMStudioValueError: If a name is unknown; the nearest known one is suggested.
    """
    known = set(model.model_fields) | {str(field.alias) for field in model.model_fields.values()}
    for name in fields:
        if name not in known:
            remedy = explain_unknown_setting(to_snake(str(name)), model.model_fields, owner=model.__name__)
            raise LMStudioValueError(f"unknown setting {name!r}; {remedy}")


@cache
def wire_keys(settings: type[BaseModel]) -> dict[str, WireKey]:
    """Return the wire keys of the fields of a config, or of an adapter, by name."""
    prefix = settings.prefix if issubclass(settings, Settings) else ""
    return {
        name: replace(item, key=prefix + item.key) if item.key.startswith(".") else item
        for name, field in settings.model_fields.items()
        for item in field.metadata
        if isinstance(item, WireKey)
    }
