"""`embed`: adds the vectors of its texts to a file. An interrupted run continues where it stopped.

`rows.py` reads the rows, `output.py` writes them. Each batch is written before the next one is read.
"""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._common import (
    Host,
    OnDevice,
    Token,
    note,
    progress_bar,
    progress_display,
    results,
    warnings_as_notes,
)
from lmstudio_integrations.cli._completion import embedding_keys
from lmstudio_integrations.cli._devices import on_device
from lmstudio_integrations.cli._embed.output import Journal, json_line, open_stream
from lmstudio_integrations.cli._embed.rows import (
    STANDARD,
    Columns,
    InputFormat,
    OutputFormat,
    Row,
    output_format_of,
    rows_of,
)
from lmstudio_integrations.cli._loaded_models import downloaded_models, find_key, loaded_models
from lmstudio_integrations.cli._model_choice import SIZE_LIMIT, choose
from lmstudio_integrations.client.api.sync import Client, EmbeddingModel
from lmstudio_integrations.client.embeddings.long_texts import EmbeddingRequest, LengthPolicy
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError

TTL = 3600
MOST_ROWS = 65_536
"""The most rows that are embedded together. They are held in memory."""
RETRIES = 3
"""How often a batch is repeated if the connection is lost."""


def embed(  # noqa: PLR0917 - one parameter for each flag
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The file with the texts; - is stdin.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file, pipe or device to write; - is stdout.")
    ] = STANDARD,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The embedding model, or a part of its name. Default: a loaded one, else the smallest downloaded one.",
            show_default=False,
            autocompletion=embedding_keys,
        ),
    ] = None,
    field: Annotated[str, typer.Option(metavar="NAME", help="The field or column that has the text.")] = "text",
    vector_field: Annotated[str, typer.Option(metavar="NAME", help="The field of the vector.")] = "embedding",
    model_field: Annotated[str, typer.Option(metavar="NAME", help="The field of the model's key.")] = "model",
    input_format: Annotated[
        InputFormat | None, typer.Option(help="The format of the input, if its suffix does not name it.")
    ] = None,
    output_format: Annotated[
        OutputFormat | None, typer.Option(help="The format of the output, if its suffix does not name it.")
    ] = None,
    length_policy: Annotated[
        LengthPolicy,
        typer.Option(
            help="A text that is too long is an error, is embedded by its beginning, gets the average of the vectors "
            "of its parts, or is sent as it is."
        ),
    ] = "error",
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Text to put before each text, and before each part of a long one, as the model card says.",
            show_default=False,
        ),
    ] = "",
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_ROWS, help="Rows that are embedded together.")
    ] = 64,
    ttl: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=1, help="Unload the model after this many idle seconds, if this command loads it."
        ),
    ] = TTL,
    overwrite: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--overwrite", help="Replace the output, if it is a file that exists.")
    ] = False,
    device: OnDevice = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Embed the texts of a file: lines of text, JSON lines, or Parquet.

    Each row keeps its fields and gets the vector and the model. Interrupted, the same command continues where it
    stopped.
    """
    columns = Columns(field, vector_field, model_field)
    if len(set(columns)) < 3:
        raise LMStudioValueError("--field, --vector-field and --model-field must be three different names")
    is_stream = output == STANDARD or (output.exists() and not output.is_file())
    kind = output_format_of(output, output_format, is_stream=is_stream)
    rows = rows_of(input_, input_format, columns, only_text=kind == "parquet")
    total, remaining = rows.count(), iter(rows)
    journal = None if is_stream else Journal(output, rows, kind, overwrite=overwrite)
    names = {"--field": field, "--vector-field": vector_field, "--model-field": model_field}
    with Client(host, token) as client, warnings_as_notes():
        handle, key = _model(client, model or (journal.settings.get("--model") if journal else None), ttl, device)
        settings = {"--model": key, "--length-policy": length_policy, "--prefix": prefix, **names}
        with open_stream(output) if journal is None else journal.opened(settings, remaining) as write:
            done, without_text = journal.rows if journal else 0, 0
            with _progress(output) as progress:
                task = progress.add_task("Embedding", total=total, completed=done)
                while batch := list(islice(remaining, batch_size)):
                    vectors = embed_batch(handle, batch, length_policy, prefix)
                    write([json_line(row, vector, columns, key) for row, vector in zip(batch, vectors, strict=True)])
                    done, without_text = done + len(batch), without_text + vectors.count(None)
                    progress.update(task, completed=done)
    if without_text:
        note(f"{counted(without_text, 'row')} without text; the vector is null.")
    if output != STANDARD:
        note(f"Wrote {counted(done, 'row')} to {output}.")


def _model(client: Client, name: str | None, ttl: int, device: str | None) -> tuple[EmbeddingModel, str]:
    """Return the embedding model, loaded, with its key."""
    loaded = on_device(client, loaded_models(client, "embedding"), device)
    downloaded = on_device(client, downloaded_models(client), device)
    if name is None:
        choice = choose(loaded, [info for info in downloaded if info.type == "embedding"])
        if choice is None:
            raise LMStudioValueError(
                f"no embedding model is loaded, and none below {SIZE_LIMIT / 1e9:g} GB is downloaded; name one with "
                "--model, or download one with `lmsi get`"
            )
        name = choice.name
    elif name not in {info.identifier for info in loaded}:
        name = find_key(name, downloaded, "embedding")
    with progress_bar(f"Loading {name}") as show:
        handle = client.embedding.model(name, ttl=ttl, device=device, load_policy="explicit", on_load_progress=show)
    return handle.with_retries(RETRIES), handle.get_info().model_key


def _progress(output: Path) -> Progress:
    """Return a display of the rows, which is shown on a terminal that does not show the results."""
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    progress = progress_display("{task.description}", *columns, transient=True)
    progress.disable |= output == STANDARD and results().is_terminal
    return progress


def embed_batch(
    handle: EmbeddingModel, batch: list[Row], policy: LengthPolicy, prefix: str
) -> list[list[float] | None]:
    """Return the vectors of some rows; a row without text has none.

    Raises:
        LMStudioError: If that fails; the message names the rows.
    """
    rows = [row for row in batch if row.text and not row.text.isspace()]
    labels, texts = [row.label for row in rows], [row.text or "" for row in rows]
    request = EmbeddingRequest(texts, policy, "the length of the texts", prefix, labels=labels)
    try:
        vectors = dict(zip(labels, handle.embed_texts(request) if texts else [], strict=True))
    except LMStudioError as error:
        if str(error).startswith(tuple(f"{label} has " for label in labels)):  # a text that is too long
            raise
        place = labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"
        raise LMStudioError(f"{place}: {error}") from error
    return [vectors.get(row.label) for row in batch]
