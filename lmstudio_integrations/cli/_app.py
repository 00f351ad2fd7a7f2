"""The application with all commands. Needs the `cli` extra.

A command is a function in the module of its name, which is imported only when the command is used or described.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = ("doctor", "chat", "ls", "ps", "load", "unload", "get", "embed", "serve", "demo")


def _plain(**settings: Any) -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


class _Commands(Mapping[str, Any]):
    """The commands by name."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        single = _plain(add_completion=False)
        single.command(name)(getattr(import_module(f"lmstudio_integrations.cli._{name}"), name))
        return get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands: Any = _Commands()


app = _plain(name="lmsi", cls=_Group, no_args_is_help=True)


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer calls it
    if requested:
        typer.echo(version("lmstudio-integrations"))
        raise typer.Exit


@app.callback()
def _common(
    show_version: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """LM Studio from the command line, and an emulator of it."""
