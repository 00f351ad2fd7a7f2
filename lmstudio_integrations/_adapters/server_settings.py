"""The fields of all objects that hold settings of a connection: the server, the timeouts; and their life cycle.

The adapters of models (`connection_settings.py`) and of tools (`toolkit_settings.py`) have them. Each call reads the
fields, so an assignment takes effect with the next one. Nothing here opens a connection.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cache, cached_property
from inspect import get_annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from lmstudio_integrations._adapters.field_types import (
    DECLARED,
    PACKAGE,
    ApiToken,
    InputAlias,
    Secret,
    describe_fields,
    show_fields,
    token_from_environment,
)
from lmstudio_integrations._adapters.input_checks import normalize_input, resolve_aliases, validated
from lmstudio_integrations._adapters.runtime import BaseRuntime
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioAuthenticationError
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.timeouts import ServerTimeouts

SECRETS = ("api_token", "headers")
"""Fields that are never pickled."""


class _Server(BaseModel):
    """Which server. A base of its own, because the fields of the last base come first, in signatures and in `repr`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    host: str | Sequence[str | tuple[str, str]] | None = Field(
        default=None,
        description="Address of the server: `host:port` or a URL, with or without `/v1`. With a list, each call runs "
        "on a server with a free slot; a pair in it, `(address, device)`, is a linked device of a server. If unset, "
        "`LMSTUDIO_HOST` applies (commas separate several), else LM Studio on "
        "this machine. `base_url` is an alias.",
    )

    if TYPE_CHECKING:
        api_token: Secret = DECLARED
        api_key: InputAlias[SecretStr | str | None] = DECLARED
        base_url: InputAlias[str | None] = DECLARED
    else:
        api_token: ApiToken

    headers: Mapping[str, str | SecretStr] | None = Field(
        default=None,
        exclude=True,
        description="Extra HTTP headers for the connection, for example for a proxy. None by default. Their values "
        "are secrets: `repr`, pickles and dumps omit them, and in a call they must be `pydantic.SecretStr`.",
    )

    ca_file: str | os.PathLike[str] | None = Field(
        default=None,
        description="Path of a PEM file with certificate authorities to trust, for `wss://` and `https://` hosts. If "
        "unset, the system's are trusted.",
    )

    max_message_bytes: Count | None = Field(
        default=addresses.MAX_MESSAGE_BYTES,
        description="The largest message to accept from the server, in bytes. A larger one fails the calls on its "
        "connection. The default is 268,435,456; `None` accepts any size.",
    )


_NOT_IN_SCHEMA = frozenset(
    {"on_load_progress", "on_prompt_progress", "on_status", "on_warning", "custom_get_token_ids", "rate_limiter"}
)
"""Fields with a type that JSON schemas do not have; the last two are langchain-core's."""


class ServerSettings(ServerTimeouts, _Server):
    """Which server, and how long to wait for it."""

    # Built with the first object: after `__pydantic_init_subclass__`, which describes the framework's fields.
    # In JSON, an infinite number would be null, which is another setting.
    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, ser_json_inf_nan="strings")

    _framework_descriptions: ClassVar[Mapping[str, str]] = {}
    """Descriptions of the framework's fields."""

    if TYPE_CHECKING:

        @cached_property
        def _runtime(self) -> BaseRuntime:
            """What this object has open."""
            ...

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Describe the class to `inspect` and `help`. A signature that it inherits may be that of its base."""
        super().__pydantic_init_subclass__(**kwargs)
        for name in cls._framework_descriptions.keys() & cls.model_fields.keys():
            cls.model_fields[name].description = cls._framework_descriptions[name]  # of a copy of the framework's field
        for name in _NOT_IN_SCHEMA & cls.model_fields.keys():
            cls.model_fields[name].metadata = [*cls.model_fields[name].metadata, cast("Any", SkipJsonSchema)()]
        describe_fields(cls)
        show_fields(cls)

    @classmethod
    def model_rebuild(cls, *, _parent_namespace_depth: int = 2, **arguments: Any) -> bool | None:
        """Build the schema again, for example after a type was defined. pydantic replaces our signature by its own."""
        rebuilt = super().model_rebuild(_parent_namespace_depth=_parent_namespace_depth + 1, **arguments)
        show_fields(cls)
        return rebuilt

    @model_validator(mode="before")
    @classmethod
    def _check_input(cls, values: Any) -> Any:
        if not is_object(values):
            return values
        return cls._resolve_aliases(normalize_input(values))

    @model_validator(mode="wrap")
    @classmethod
    def _without_secrets(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep secrets out of pydantic's errors, which quote the input."""
        try:
            return validate(values)
        except ValidationError as error:
            raise without_secrets(error) from None

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the input under the names of our fields. The adapters accept more names."""
        return resolve_aliases(values, cls.model_fields, cls.__name__)

    @classmethod
    def _validated(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of a call, an assignment or a copy as the constructor checks and converts them.

        Raises:
            LMStudioValueError: If a value is invalid.
        """
        checked = normalize_input(values)
        for name, value in checked.items():
            if (validator := _validator(cls, name)) is not None:
                checked[name] = validated(name, value, validator)
        return checked

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a setting.

        Raises:
            LMStudioValueError: If the value is invalid.
        """
        super().__setattr__(name, self._validated({name: value})[name])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some settings changed; it has its own clients.

        Raises:
            LMStudioValueError: If a setting is unknown, or a value is invalid.
        """
        named = resolve_aliases(update or {}, type(self).model_fields, type(self).__name__)
        return super().model_copy(update=self._validated(named), deep=deep)

    # Life cycle -----------------------------------------------------------------------------------------------------

    def _check_secrets(self, values: Mapping[str, Any]) -> None:
        """Check that a call has its secrets.

        Raises:
            LMStudioAuthenticationError: If one is missing that was left out when this object was pickled.
        """
        for name in self._runtime.dropped_secrets:
            if values[name] is None:
                raise LMStudioAuthenticationError(_DROPPED_ERRORS[name].format(type(self).__name__))

    def close(self) -> None:
        """Close what this object has open. It can be used again after that."""
        self._runtime.close()

    async def aclose(self) -> None:
        """Do the same as `close`."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what `repr` shows: the settings that were set and differ from their defaults."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if name in self.model_fields_set and not fields[name].exclude and value != fields[name].default:
                yield name, value

    def __copy__(self) -> Self:
        copied = super().__copy__()
        shared = vars(copied).get("_runtime")
        if shared is not None:
            copied._runtime = copy(shared)  # noqa: SLF001 - a copy of our own kind
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        settings = {name: vars(self)[name] for name in type(self).model_fields}
        return {**state, "__dict__": {**settings, **self._secrets_set()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = state["__dict__"]
        super().__setstate__({**state, "__dict__": {**fields, "api_token": token_from_environment(), "headers": None}})
        self._record_dropped_secrets(fields)

    def _secrets_set(self) -> dict[str, bool]:
        """Return which secrets this object has, or had before it was pickled. Replaces them in a pickle."""
        return {name: vars(self)[name] is not None or name in self._runtime.dropped_secrets for name in SECRETS}

    def _record_dropped_secrets(self, held: Mapping[str, Any]) -> None:
        """Record which secrets the pickle of this object left out."""
        self._runtime.dropped_secrets = frozenset(
            name for name in SECRETS if held.get(name) and vars(self)[name] is None
        )


@cache
def _validator(kind: type[ServerSettings], name: str) -> TypeAdapter[dict[str, Any]] | None:
    """Return what validates a field; `None` for those of the framework and of users' classes, which stay unchecked.

    It validates a dict with the field, because validators read the field's name.
    """
    own, *_ = bases = [base for base in kind.__mro__ if base.__module__.startswith(PACKAGE)]
    field = own.model_fields.get(name) if issubclass(own, BaseModel) else None
    if field is None or not any(name in get_annotations(base) for base in bases):
        return None
    make_type = cast("Any", TypedDict)  # for type checkers: the name of the field is no literal
    return TypeAdapter(make_type("Setting", {name: Annotated[field.annotation, field]}))


_DROPPED_ERRORS = {
    "api_token": f"the API token was left out when this {{}} was pickled; set {TOKEN_VARIABLES[0]} in this process",
    "headers": "the headers were left out when this {} was pickled; assign them again, or {{}} for none",
}
