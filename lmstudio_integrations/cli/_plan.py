"""`plan`: which models fit into the memory of a machine."""

import math
from dataclasses import asdict
from typing import Annotated

import typer

from lmstudio_integrations.cli._common import AsJson, Host, OnDevice, Token, print_json, results


def plan(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL[:CONTEXT][@SLOTS]...",
            help="Keys or paths, in the order of loading; each with its context length, and how many predictions run "
            "at once.",
            show_default=False,
        ),
    ],
    *,
    device: OnDevice = None,
    every: Annotated[bool, typer.Option("--any", help="Also evict what was loaded without a TTL.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Show which models fit into the memory of a machine at once.

    Nothing is loaded or unloaded. The exit status is 0 if all of them fit, if need be after others are evicted, and 1
    if not, or if one has or would have a shorter context than requested.
    """
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    with Client(host, token) as client:
        found = client.plan(models, device=device, evict="any" if every else "own")
    fits = found.fits and all(
        (each.context_length or math.inf) >= (each.requested_context_length or 0) for each in found.models
    )
    if as_json:
        print_json({"fits": fits, **asdict(found)})
    else:
        console = results()
        for line in str(found).split("\n"):
            console.write_line(line)
    raise typer.Exit(int(not fits))
