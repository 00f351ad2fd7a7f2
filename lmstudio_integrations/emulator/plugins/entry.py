"""What a plugin of the catalog is: the fields of its table, and the checks of them."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lmstudio_integrations._support.secrets import redact_address
from lmstudio_integrations.emulator.engines.scripted import parse_rules
from lmstudio_integrations.emulator.plugins.functions import parse_functions
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.requests import ARTIFACT, kebab_case


class CatalogTable(BaseModel):
    """A table of the catalog; unknown names are an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, defer_build=True
    )


PluginKind = Literal["command", "url", "functions", "generator"]
"""What a plugin is, by the field that says so."""

_FIELDS_OF_KINDS: dict[str, PluginKind] = {
    "env": "command",
    "working_directory": "command",
    "headers": "url",
    "rules": "generator",
}


class PluginEntry(CatalogTable):
    """One plugin of the catalog: an MCP server, Python functions, or a generator.

    `identifier` is `owner/name`, in lower case letters, digits and hyphens. Exactly one of these fields says what it
    is: `command` is the program of an MCP server and its arguments, `url` the address of one that runs elsewhere,
    `functions` are tools as `act` takes them, and `generator` is whether it writes messages in place of a model.

    `env` are variables for the program, in addition to those that MCP clients usually pass on, such as `PATH`, and
    `working_directory` is where it runs; without one, clients choose it. `headers` are sent to the address.
    `rules` are those of a generator, as scripted models have them.
    """

    identifier: str
    command: Annotated[tuple[str, ...] | None, Field(min_length=1, repr=False)] = None
    url: Annotated[str | None, Field(repr=False)] = None
    functions: tuple[Any, ...] = ()
    generator: bool = False
    env: dict[str, str] = Field(default_factory=dict[str, str], repr=False)
    headers: dict[str, str] = Field(default_factory=dict[str, str], repr=False)
    working_directory: str | None = None
    rules: Annotated[tuple[Any, ...], Field(alias="rule")] = ()

    @field_validator("identifier")
    @classmethod
    def _check_identifier(cls, identifier: str) -> str:
        if not ARTIFACT.fullmatch(identifier):
            raise LMStudioValueError(
                f"must be owner/name in lower case letters, digits and hyphens, for example "
                f"{kebab_case(identifier) or 'mcp/weather'!r}; got {identifier!r}"
            )
        return identifier

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise LMStudioValueError(f"must begin with http:// or https://; got {redact_address(url)!r}")
        return url

    @field_validator("functions")
    @classmethod
    def _check_functions(cls, functions: tuple[Any, ...]) -> tuple[Any, ...]:
        parse_functions(functions)
        return functions

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        parse_rules(rules)
        return rules

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        kinds = [kind for kind in get_args(PluginKind) if getattr(self, kind)]
        if len(kinds) != 1:
            names = " and ".join(kinds) or "none of them"
            raise LMStudioValueError(f"it needs exactly one of {', '.join(get_args(PluginKind))}, and has {names}")
        for name, kind in _FIELDS_OF_KINDS.items():
            if kind != kinds[0] and getattr(self, name):
                raise LMStudioValueError(f"{name}: only a plugin with {kind!r} has it, and this one has {kinds[0]!r}")
        return self

    @property
    def kind(self) -> PluginKind:
        """What it is."""
        return next(kind for kind in get_args(PluginKind) if getattr(self, kind))
