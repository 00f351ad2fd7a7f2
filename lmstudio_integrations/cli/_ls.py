"""`ls`: the models of a server, their kinds, and which of them are loaded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    Token,
    downloaded_models,
    loaded_models,
    note,
    print_json,
    results,
)
from lmstudio_integrations.cli._formatting import model_size
from lmstudio_integrations.types.models import DecisionModelInfo, LlmInfo, ModelInfo, ModelInstanceInfo

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client

TITLES = {"llm": "LLM", "embedding": "EMBEDDING", "decision": "DECISION"}


def ls(
    *,
    llm: Annotated[bool, typer.Option("--llm", help="Only language models.")] = False,
    embedding: Annotated[bool, typer.Option("--embedding", help="Only embedding models.")] = False,
    decision: Annotated[bool, typer.Option("--decision", help="Only decision models.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """List the models of a server: the keys to load them with, and which are loaded."""
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - slow

    chosen = {"llm": llm, "embedding": embedding, "decision": decision}
    kinds = [kind for kind, is_chosen in chosen.items() if is_chosen] or list(chosen)
    with Client(host, token) as client:
        downloaded = downloaded_models(client)
        shown = [info for info in downloaded if info.type in kinds]
        if as_json:
            efforts = _efforts(client)
            print_json([{**info.to_dict(), **efforts.get(info.model_key, {})} for info in shown])
            return
        loaded, devices = loaded_models(client), device_names(client, downloaded)
    if not shown:
        note("No such model is downloaded." if downloaded else "No model is downloaded; `lms get` downloads one.")
    console = results()
    for kind, title in TITLES.items():
        models = [info for info in shown if info.type == kind]
        for line in model_lines(title, models, loaded, devices, console.width) if models else ():
            console.write_line(line)


def _efforts(client: "Client") -> Mapping[str, Any]:
    """Return what the infos of models that allow efforts of reasoning have in addition, by their keys."""
    from lmstudio_integrations.client.api.base import context_of  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.concurrency.flows import run  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.transport.operation import Operation  # noqa: PLC0415 - slow

    try:
        with door("efforts of reasoning"):
            from lmstudio_integrations.client.models.efforts import list_efforts  # noqa: PLC0415 - a leaf
    except MissingLeafError:
        return {}
    listed = run(list_efforts(Operation(context_of(client))))
    return {key: {"reasoning": each._asdict()} for key, each in listed.items()}


def device_names(client: "Client", infos: Iterable[ModelInfo]) -> dict[str | None, str]:
    """Return the name of each device by its identifier; nothing if all models are on the server's own machine."""
    if all(info.device_identifier is None for info in infos):
        return {}
    return {None: "local", **{peer.device_identifier: peer.device_name for peer in client.link_status().peers}}


def model_lines(
    title: str,
    models: Iterable[ModelInfo],
    loaded: Iterable[ModelInstanceInfo],
    devices: Mapping[str | None, str],
    width: int,
) -> list[str]:
    """Return a table of downloaded models of one kind, what they can do, and how often each is loaded.

    Args:
        title: The kind.
        models: The models.
        loaded: The instances of any models.
        devices: The names of devices, by their identifiers; empty if all models are on one machine.
        width: The columns of the terminal.
    """
    count = Counter((instance.model_key, instance.device_identifier) for instance in loaded)
    rows = [
        (
            info.model_key,
            info.params_string or "",
            info.architecture or "",
            model_size(info.size_bytes),
            _abilities(info),
            devices.get(info.device_identifier, str(info.device_identifier)) if devices else "",
            _loaded(count[info.model_key, info.device_identifier]),
        )
        for info in models
    ]
    header = (title, "PARAMS", "ARCH", "SIZE", "ABILITIES", "DEVICE", "")
    return _table(header, rows, width, omit=("ARCH", "PARAMS", "ABILITIES", "SIZE"))


def _loaded(count: int) -> str:
    if count == 0:
        return ""
    return "✓ LOADED" if count == 1 else f"✓ LOADED ({count})"


def _abilities(info: ModelInfo) -> str:
    if isinstance(info, DecisionModelInfo):
        return "vision" if info.has_vision_adapter else ""
    if not isinstance(info, LlmInfo):
        return ""
    return ", ".join(name for name, has in (("tools", info.trained_for_tool_use), ("vision", info.vision)) if has)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, omit: Sequence[str]) -> list[str]:
    """Return a table as lines, without columns that are empty, nor those that make it wider than the terminal.

    Args:
        header: The names of the columns.
        rows: The cells.
        width: The columns of the terminal.
        omit: The columns to leave out, the least important first.
    """
    columns = {name: cells for name, *cells in zip(header, *rows, strict=True) if any(cells)}
    widths = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}
    for name in omit:
        if sum(widths.values()) + 2 * (len(widths) - 1) > width:
            widths.pop(name, None)
    table = zip(*((name, *columns[name]) for name in widths), strict=True)
    return ["  ".join(map(set_cell_size, row, widths.values())).rstrip() for row in table]
