"""`cassette`: what a recording contains, and how two of them differ."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lmstudio_integrations.cli._common import note, results


def cassette(
    action: Annotated[
        Literal["show", "diff"],
        typer.Argument(metavar="ACTION", help="show: a line for each request. diff: how two recordings differ."),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The cassette.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="OTHER", help="The one to compare it with.", show_default=False)
    ] = None,
) -> None:
    """Show what a recording of `lmsi record` contains, or how two of them differ.

    What a replay leaves aside, such as times and generated identifiers, is left aside when two are compared. The exit
    status is 1 if they differ.
    """
    from lmstudio_integrations.emulator.testing.cassettes.cassette import read  # noqa: PLC0415 - slow
    from lmstudio_integrations.emulator.testing.cassettes.instances import RecordedInstances  # noqa: PLC0415
    from lmstudio_integrations.emulator.testing.cassettes.response import compare, describe  # noqa: PLC0415

    if (other is None) == (action == "diff"):
        raise typer.BadParameter(f"{action} takes {'two files' if other is None else 'one file'}", param_hint="FILE")
    console, recorded = results(), read(file)
    if other is None:
        references = RecordedInstances(recorded).references
        for interaction in recorded:
            console.write_line(f"{interaction.number:>4}  {describe(interaction, references)}")
        return
    differences = compare(recorded, read(other))
    for difference in differences:
        console.write_line(difference.title)
        for line in difference.details:
            console.write_line(f"  {line}")
    if differences:
        raise typer.Exit(1)
    note("The requests and the responses are the same.")
