"""`ls`: the downloaded models, or the variants of one."""

from typing import TYPE_CHECKING, Annotated

import typer

from lmstudio_integrations.cli._common import AsJson, Host, Token, note, print_json, results
from lmstudio_integrations.cli._completion import downloaded_keys

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client

TITLES = {"llm": "LLM", "embedding": "EMBEDDING"}


def ls(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="List the variants of this model, such as its quantizations.",
            autocompletion=downloaded_keys,
            show_default=False,
        ),
    ] = None,
    *,
    llm: Annotated[bool, typer.Option("--llm", help="Only language models.")] = False,
    embedding: Annotated[bool, typer.Option("--embedding", help="Only embedding models.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """List the downloaded models, or the variants of one: the keys to load them with, and which one is selected."""
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    if model is not None and (llm or embedding):
        raise typer.BadParameter("it selects among models, and one is named", param_hint="--llm or --embedding")
    with Client(host, token) as client:
        if model is not None:
            _list_variants(client, model, as_json=as_json)
        else:
            _list_models(client, {"llm" if llm else "", "embedding" if embedding else ""} - {""}, as_json=as_json)


def _list_models(client: "Client", kinds: set[str], *, as_json: bool) -> None:
    from lmstudio_integrations.cli._devices import device_names  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._loaded_models import downloaded_models, loaded_models  # noqa: PLC0415
    from lmstudio_integrations.cli._tables import downloaded_lines  # noqa: PLC0415

    downloaded = downloaded_models(client)
    shown = [info for info in downloaded if info.type in (kinds or TITLES)]
    if as_json:
        print_json([info.to_dict() for info in shown])
        return
    loaded, devices = loaded_models(client), device_names(client, downloaded)
    if not shown:
        note(
            "No such model is downloaded." if downloaded else "No model is downloaded; `lmsi get MODEL` downloads one."
        )
    console = results()
    for kind, title in TITLES.items():
        models = [info for info in shown if info.type == kind]
        for line in downloaded_lines(title, models, loaded, devices, console.width) if models else ():
            console.write_line(line)


def _list_variants(client: "Client", name: str, *, as_json: bool) -> None:
    from lmstudio_integrations.cli._loaded_models import find_downloaded  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._tables import variant_lines  # noqa: PLC0415

    info = find_downloaded(client, name).info
    # Of a model without variants, the server replies with an error.
    found = client.system.list_downloaded_model_variants(info.model_key) if info.variants else []
    variants = [each.info for each in found]
    if as_json:
        print_json([variant.to_dict() for variant in variants])
        return
    if not variants:
        note(f"{info.model_key} has no variants; `lmsi load {info.model_key}` loads it.")
        return
    console = results()
    for line in variant_lines(variants, info.selected_variant, console.width):
        console.write_line(line)
