"""`rerank`: prints the texts of a file by how relevant they are to a query."""

from pathlib import Path
from typing import Annotated

import typer

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    OnDevice,
    Token,
    Ttl,
    note,
    print_json,
    progress_bar,
    results,
    warnings_as_notes,
)
from lmstudio_integrations.cli._completion import llm_names
from lmstudio_integrations.cli._devices import on_device
from lmstudio_integrations.cli._embed.rows import STANDARD, Columns, InputFormat, Rows, rows_of
from lmstudio_integrations.cli._loaded_models import loaded_models, open_llm
from lmstudio_integrations.cli._model_choice import choose
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.predictions.reranking.prompts import FAMILIES
from lmstudio_integrations.types.reranking import RerankResult


def rerank(  # noqa: PLR0917 - one parameter for each flag
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What the texts should be relevant to.")],
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The file with the texts; - is stdin.", show_default=False)
    ] = STANDARD,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The model, or a part of its name. Default: a loaded reranker, else the loaded model that was used "
            "last.",
            show_default=False,
            autocompletion=llm_names,
        ),
    ] = None,
    top_n: Annotated[
        int | None,
        typer.Option("--top-n", "-n", metavar="N", min=1, help="Print only the N best texts.", show_default=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE", min=0, max=1, help="Print only texts with at least this score.", show_default=False
        ),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What relevant means, as a sentence.", show_default=False)
    ] = None,
    field: Annotated[str, typer.Option(metavar="NAME", help="The field or column that has the text.")] = "text",
    input_format: Annotated[
        InputFormat | None, typer.Option(help="The format of the input, if its suffix does not name it.")
    ] = None,
    ttl: Ttl = None,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    device: OnDevice = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Print texts by how relevant they are to a query, best first, with their scores from 0 to 1.

    The texts are lines, or those of JSON lines or Parquet. Blank ones are left out.
    """
    rows = rows_of(input_, input_format, Columns(field), only_text=True)
    with Client(host, token) as client, warnings_as_notes():
        handle = open_llm(client, model or _loaded_reranker(client, device), ttl, device)
        texts = _texts(rows)
        with progress_bar("Reranking") as show:
            ranked = handle.rerank(query, list(texts.values()), instruction=instruction, top_n=top_n, on_progress=show)
    if threshold is not None:
        ranked = [each for each in ranked if each.score is not None and each.score >= threshold]
    _print(ranked, texts, as_json=as_json)
    if truncated := sum(each.truncated for each in ranked):
        note(f"{counted(truncated, 'text')} too long for the model; the score is that of the beginning.")


def _loaded_reranker(client: Client, device: str | None) -> str | None:
    """Return the identifier of a loaded model that was trained as a reranker."""
    loaded = on_device(client, loaded_models(client, "llm"), device)
    choice = choose((info for info in loaded if any(form.search(info.model_key) for form, _ in FAMILIES)), ())
    return None if choice is None else choice.name


def _texts(rows: Rows) -> dict[int, str]:
    """Return the texts by the indexes of their rows."""
    return {index: row.text for index, row in enumerate(rows) if row.text and not row.text.isspace()}


def _print(ranked: list[RerankResult], texts: dict[int, str], *, as_json: bool) -> None:
    rows = list(texts.items())
    if as_json:
        values = [(each.score, *rows[each.index]) for each in ranked]
        print_json([{"index": index, "score": score, "text": text} for score, index, text in values])
        return
    console = results()
    for each in ranked:
        score = "-    " if each.score is None else f"{each.score:.3f}"
        console.write_line(f"{score}  {rows[each.index][1]}")
