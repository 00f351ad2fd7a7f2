"""`ls`: the downloaded models."""

from typing import Annotated

import typer

from lmstudio_integrations.cli._common import AsJson, Host, Token, note, print_json, results

TITLES = {"llm": "LLM", "embedding": "EMBEDDING"}


def ls(
    *,
    llm: Annotated[bool, typer.Option("--llm", help="Only language models.")] = False,
    embedding: Annotated[bool, typer.Option("--embedding", help="Only embedding models.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """List the downloaded models."""
    from lmstudio_integrations.cli._devices import device_names  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._loaded_models import downloaded_models, loaded_models  # noqa: PLC0415
    from lmstudio_integrations.cli._tables import downloaded_lines  # noqa: PLC0415
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    kinds = {"llm" if llm else "", "embedding" if embedding else ""} - {""} or TITLES.keys()
    with Client(host, token) as client:
        downloaded = downloaded_models(client)
        loaded = [] if as_json else loaded_models(client)
        devices = {} if as_json else device_names(client, downloaded)
    shown = [info for info in downloaded if info.type in kinds]
    if as_json:
        print_json([info.to_dict() for info in shown])
        return
    if not shown:
        note(
            "No such model is downloaded." if downloaded else "No model is downloaded; `lmsi get MODEL` downloads one."
        )
    console = results()
    for kind, title in TITLES.items():
        models = [info for info in shown if info.type == kind]
        for line in downloaded_lines(title, models, loaded, devices, console.width) if models else ():
            console.write_line(line)
