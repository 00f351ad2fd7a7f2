"""The application with all commands. Needs the `cli` extra.

A command is a line of `COMMANDS` and a module, which is imported only when the command is used or described.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.cli._formatting import report_usage

_SETTINGS = {"help_option_names": ["-h", "--help"]}

COMMANDS = {
    "doctor": "Check the connection to LM Studio, and its models.",
    "ls": "List the models of a server: the keys to load them with, and which are loaded.",
    "plan": "Show which models fit into the memory of a machine at once.",
    "serve": "Run a server that speaks LM Studio's protocol, without LM Studio.",
    "demo": "Answer a question over three short documents, by retrieval.",
}
"""What each command does. It is the function of its name in the module `_<name>`; without that, it is not listed."""

OF_LM_STUDIO = {"chat", "get", "import", "load", "log", "ps", "unload"}
"""Commands of LM Studio's own command line that this one does not have."""

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


class _Group(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands: Any = dict.fromkeys(name for name in COMMANDS if find_spec(_module(name)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer calls it
        """Import a command, also one whose module was deleted: the error says so."""
        if cmd_name not in COMMANDS:
            return None
        with door(f"the command {cmd_name!r}"):
            function = getattr(import_module(_module(cmd_name)), cmd_name)
        single = _plain(add_completion=False)
        single.command(cmd_name, cls=_Command, short_help=COMMANDS[cmd_name], context_settings=_SETTINGS)(function)
        return get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's own imports all commands
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.commands])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            if args[0] in OF_LM_STUDIO:
                error.message = f"No such command {args[0]!r}; LM Studio itself has it: `lms {args[0]}`"
            raise


def _module(name: str) -> str:
    return f"{__package__}._{name}"


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
