"""The base of the settings: names in Python, keys on the wire, and the way between them (protocol §5.4).

Which setting has which key is written at the fields in `config.py`; nothing here names one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self, cast

from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from lmstudio_integrations._secrets import without_secrets
from lmstudio_integrations._suggestions import hint, near
from lmstudio_integrations._typeguards import is_mapping, is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._base import WireModel
from lmstudio_integrations.types._numbers import OR_FALSE


@dataclass(frozen=True, slots=True)
class Kv:
    """The wire key of a setting.

    With `checkbox`, the value travels as `{"checked": true, "value": …}`. With `off`, `False` switches the setting off,
    and `off` is sent: beside an empty checkbox, which wants a value even so, or alone.
    """

    key: str
    checkbox: bool = False
    off: Any = None

    def encode(self, value: Any) -> Any:
        """Return the wire form of a value."""
        is_off = value is False and self.off is not None
        sent = self.off if is_off else value
        return {"checked": not is_off, "value": sent} if self.checkbox else sent

    def decode(self, value: Any) -> Any:
        """Return the value of a wire form; `None` for a checkbox that is off."""
        if self.checkbox and is_object(value):
            # The official Python SDK writes "off" as {"checked": true, "value": false} (protocol §5.4).
            return value.get("value") if value.get("checked") and value.get("value") is not False else None
        return value


class WrittenModel(WireModel):
    """A value that people write, and mistype: what it does not know is an error, with the nearest known name."""

    model_config: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False, extra="forbid")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            found = without_secrets(error)
        else:
            return
        raise self._refusal(fields, found) from found

    # Pydantic builds values without it, so that it can still say where in a value within a value the fault is.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the value from a dict with either spelling.

        Raises:
            LMStudioValueError: If a name is unknown (the nearest known one is suggested), or a value cannot be.
        """
        fields = _as_mapping(data, cls.__name__)
        try:
            return super().from_dict(fields)
        except ValidationError as error:
            found = without_secrets(error)
        raise cls._refusal(fields, found) from found

    @classmethod
    def _refusal(cls, fields: Mapping[str, Any], error: ValidationError) -> LMStudioValueError:
        cls._check_names(fields)
        return LMStudioValueError(_explain(error))

    @classmethod
    def _check_names(cls, fields: Mapping[str, Any]) -> None:
        check_names(fields, cls)


class Settings(WrittenModel):
    """A group of settings; all optional, and only those that are set are sent."""

    def model_post_init(self, _context: Any, /) -> None:
        """Leave `None` as it was given: laid over other settings, it unsets."""

    raw: dict[str, Any] | None = None
    """Further settings by their full wire keys; the named fields win over them."""

    @classmethod
    def parse(cls, value: Self | Mapping[str, Any] | None) -> Self:
        """Accept an instance, a dict with either spelling, or nothing.

        Raises:
            LMStudioValueError: If a name is unknown (the nearest known one is suggested), a value cannot be, or
                settings do not go together.
        """
        if value is None:
            settings: Self = _unset(cls)
        elif isinstance(value, cls):
            settings = value
        else:
            settings = cls.from_dict(cast("Mapping[str, Any]", value))
        settings.check_together()
        return settings

    def check_together(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            LMStudioValueError: If two of them exclude each other, or one lacks another.
        """

    def merged(self, other: Self) -> Self:
        """Return these settings with those that `other` sets laid over them; an explicit `None` unsets."""
        ours, theirs = self._set_fields(), other._set_fields()
        if self.raw and other.raw:
            theirs["raw"] = {**self.raw, **other.raw}
        return type(self)(**{**ours, **theirs})

    def to_fields(self) -> dict[str, Any]:
        """Return the wire fields of the settings that are set; `raw` ranks below the named ones."""
        if not self.model_fields_set:
            return {}
        fields = dict(self.raw or {})
        for name, kv in _keys(type(self)).items():
            value = getattr(self, name)
            if value is not None:
                fields[kv.key] = kv.encode(value)
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read wire fields.

        A checkbox that is off, and a value that does not fit, count as not set: servers may know more than we do.
        Keys without a field of their own are kept in `raw`.
        """
        rest = dict(fields)
        values = cls._take(rest)
        if rest:
            values["raw"] = rest
        return cls(**values)

    @classmethod
    def describe(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return wire fields without loss as a dict in camelCase.

        `False` is a checkbox that is off. Values that do not fit are kept in `raw`.
        """
        settings = cls.from_fields(fields)
        described = settings.to_dict()
        for name, kv in _keys(cls).items():
            if kv.key not in fields or name in settings.model_fields_set:
                continue
            if kv.checkbox and kv.decode(fields[kv.key]) is None:
                described[str(cls.model_fields[name].alias)] = False
            else:
                described.setdefault("raw", {})[kv.key] = fields[kv.key]
        return described

    @classmethod
    def _take(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Move what has a field of its own out of the wire fields, and return it by name."""
        values: dict[str, Any] = {}
        for name, kv in _keys(cls).items():
            if kv.key in fields:
                value = kv.decode(fields.pop(kv.key))
                if value is not None and cls._fits(name, value):
                    values[name] = value
        return values

    @classmethod
    def _fits(cls, name: str, value: Any) -> bool:
        try:
            cls(**{name: value})
        except LMStudioValueError:
            return False
        return True

    def _set_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


def check_names(fields: Mapping[str, Any], model: type[WireModel]) -> None:
    """Refuse what a model would skip: people mistype.

    Raises:
        LMStudioValueError: If a name is unknown; the nearest known one is suggested.
    """
    known = set(model.model_fields) | {str(field.alias) for field in model.model_fields.values()}
    for name in fields:
        if name not in known:
            names = list(model.model_fields)
            meant = near(str(name), names) or near(to_camel(str(name)), names)
            raise LMStudioValueError(f"unknown setting {name!r}; {hint(names, meant)}")


def _as_mapping(value: object, wanted: str) -> Mapping[str, Any]:
    if not is_mapping(value):
        raise LMStudioValueError(f"settings are a {wanted} or a dict, got {value!r}")
    return value


_PLAINER = {"extra_forbidden": "it is given in both spellings"}
"""What pydantic's findings mean here, once the names are known to be right."""


def _explain(error: ValidationError) -> str:
    """Put pydantic's findings into one clause per setting: its name, the value, what is wrong."""
    findings: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        # The other parts of a location name the members of a union.
        path = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or part.isidentifier())
        reason = _PLAINER.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        if OR_FALSE in problem["loc"]:
            reason += ", or False to switch it off"
        findings.setdefault(f"{path}={problem['input']!r}", []).append(reason)
    return "; ".join(f"{what}: {', or '.join(reasons)}" for what, reasons in findings.items())


@cache
def _unset(settings: type[Settings]) -> Any:
    return settings()


@cache
def _keys(settings: type[Settings]) -> dict[str, Kv]:
    return dict(_iter_keys(settings))


def _iter_keys(settings: type[Settings]) -> Iterator[tuple[str, Kv]]:
    for name, field in settings.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Kv):
                yield name, mark
