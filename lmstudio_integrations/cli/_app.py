"""The application with all commands. Needs the `cli` extra."""

from importlib.metadata import version
from typing import Annotated

import typer

from lmstudio_integrations.cli._chat import chat
from lmstudio_integrations.cli._demo import demo
from lmstudio_integrations.cli._get import get
from lmstudio_integrations.cli._load import load
from lmstudio_integrations.cli._ls import ls
from lmstudio_integrations.cli._ps import ps
from lmstudio_integrations.cli._doctor import doctor
from lmstudio_integrations.cli._embed import embed
from lmstudio_integrations.cli._serve import serve
from lmstudio_integrations.cli._unload import unload

app = typer.Typer(
    name="lmstudio-integrations",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(demo)
app.command()(chat)
app.command()(ls)
app.command()(ps)
app.command()(load)
app.command()(unload)
app.command()(get)
app.command()(doctor)
app.command()(embed)


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
