"""The application with all commands. Needs the `cli` extra.

A command is a function in the module of its name, which is imported only when the command is used or described.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations.cli._formatting import report_usage

_SETTINGS = {"help_option_names": ["-h", "--help"]}

COMMANDS = ("doctor", "ls", "plan", "certify", "serve", "demo")

ELSEWHERE = {
    **{name: f"LM Studio itself has it: `lms {name}`" for name in ("chat", "get", "load", "ps", "unload")},
    "cassette": "a cassette is a text file with a line for each request",
    "embed": "use `LMStudioEmbeddings`, or `lmstudio_integrations.ray` for files",
    "logs": "LM Studio itself has it: `lms log stream`",
    "record": "use the fixture `lmstudio_cassette` of pytest",
    "rerank": "use `client.llm.model(…).rerank(query, texts)`",
    "tools": "use `LMStudioToolkit(plugin=…).get_tools()`",
    "top": "LM Studio itself has `lms ps` and `lms log stream`",
    "warm": "use `client.llm.model(…).warm(chat)`",
}
"""What serves instead of commands that this program had before its first release."""

_UsageError: Any = typer.BadParameter.__base__


def _plain(**settings: Any) -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            error.ctx = error.ctx or ctx  # typer names no command if the value of an option is missing
            raise


class _Commands(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        function = getattr(import_module(f"lmstudio_integrations.cli._{name}"), name)
        summary = (inspect.getdoc(function) or "").partition("\n\n")[0]
        single = _plain(add_completion=False)
        single.command(name, cls=_Command, short_help=summary, context_settings=_SETTINGS)(function)
        return get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands: Any = _Commands()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            if args[0] in ELSEWHERE:
                error.message = f"No such command {args[0]!r}; {ELSEWHERE[args[0]]}"
            raise


app = _plain(name="lmsi", cls=_Group, invoke_without_command=True, context_settings=_SETTINGS)


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer calls it
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    _version: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """LM Studio from the command line, and an emulator of it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run_app() -> int:
    """Run the command in `sys.argv`, and return its exit status."""
    try:
        return app(prog_name="lmsi", standalone_mode=False) or 0
    except _UsageError as error:
        sys.stderr.write(f"{report_usage(error)}\n")
        return int(error.exit_code)
    except typer.Abort:  # Ctrl-D at a question
        return 1
