"""`embed`: adds the vectors of its texts to a file. An interrupted run continues where it stopped.

`rows.py` reads the rows, `output.py` writes them. One batch is embedded at a time: it is written before
the next one is read, and Ctrl-C waits for its end, so that no text is embedded twice.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import SpinnerColumn

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._common import (
    Host,
    Token,
    note,
    notes,
    on_interrupt,
    progress_bar,
    progress_display,
    results,
    warnings_as_notes,
)
from lmstudio_integrations.cli._completion import embedding_keys
from lmstudio_integrations.cli._embed.output import (
    FILES,
    Folder,
    Output,
    StreamOutput,
    check_file,
    check_state,
    is_stdout,
    is_stream,
    open_stream,
)
from lmstudio_integrations.cli._embed.rows import (
    STANDARD,
    Batch,
    Columns,
    InputFormat,
    OutputFormat,
    Rows,
    fingerprint,
    output_format_of,
    rows_of,
)
from lmstudio_integrations.cli._loaded_models import downloaded_models, find_key, loaded_models
from lmstudio_integrations.cli._model_choice import SIZE_LIMIT, choose
from lmstudio_integrations.client.api.sync import Client, EmbeddingModel
from lmstudio_integrations.client.embeddings.long_texts import EmbeddingRequest, LengthPolicy
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioError,
    LMStudioOSError,
    LMStudioValueError,
)

TTL = 3600
MOST_ROWS = 65_536
"""The most rows that are embedded together. They are held in memory."""
RETRIES = 3
"""How often a batch is repeated if the connection is lost."""

_STATE_NAMES = {
    "version": "version of this package",
    "input": "input",
    "output_format": "--output-format",
    "input_format": "--input-format",
    "field": "--field",
    "vector_field": "--vector-field",
    "model_field": "--model-field",
    "length_policy": "--length-policy",
    "prefix": "--prefix",
    "model": "model",
}
"""What errors call the settings that must be equal to resume a run."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the command: what it embeds, how, and where it writes.

    Attributes:
        rows: The rows.
        output: The file or stream; `-` is stdout.
        columns: The names of the columns.
        length_policy: What happens to a text that is too long.
        prefix: What is put before each text.
        batch_size: Rows that are embedded together.
    """

    rows: Rows
    output: Path
    columns: Columns
    length_policy: LengthPolicy
    prefix: str
    batch_size: int


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
        bool, typer.Option("--overwrite", help="Replace the output, and start an interrupted run over.")
    ] = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Embed the texts of a file: lines of text, JSON lines, or Parquet.

    Each row keeps its fields and gets the vector and the model. Interrupted, the same command continues where it
    stopped.
    """
    columns = Columns(field, vector_field, model_field)
    if len({field, vector_field, model_field}) < 3:
        raise LMStudioValueError("--field, --vector-field and --model-field must be three different names")
    output = STANDARD if is_stdout(output) else output
    folder = None if is_stream(output) else Folder(output)
    kind = output_format_of(output, output_format, is_stream=folder is None)
    job = Job(rows_of(input_, input_format, columns), output, columns, length_policy, prefix, batch_size)
    state = _state(job, kind, overwrite=overwrite)
    if folder is not None:
        check_file(folder, overwrite=overwrite)
        if not overwrite:
            check_state(folder, state, _STATE_NAMES)
            model = model or (folder.state or {}).get("model")
    with Client(host, token) as client, warnings_as_notes(), _os_errors(output):
        handle, key = _model(client, model, ttl)
        if folder is None:
            with open_stream(output) as stream:
                run(job, StreamOutput(stream, columns, key), handle)
            return
        state["model"] = key
        with folder.locked():
            if overwrite or folder.state is None:
                folder.clear()
                folder.begin(state)
            else:
                check_state(folder, state, _STATE_NAMES)
            run(job, FILES[kind](folder, columns, key), handle)


def _state(job: Job, kind: OutputFormat, *, overwrite: bool) -> dict[str, Any]:
    """Return the settings on which the output depends; the model is not known yet."""
    columns = job.columns
    return {
        "version": 1,
        "input": fingerprint(job.rows.path),
        "input_format": job.rows.name,
        "output_format": kind,
        "field": columns.text,
        "vector_field": columns.vector,
        "model_field": columns.model,
        "length_policy": job.length_policy,
        "prefix": job.prefix,
        "overwrite": overwrite,
    }


@contextlib.contextmanager
def _os_errors(output: Path) -> Generator[None]:
    """Turn an error of the file system into one message; those of stdout are the same for all commands."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LMStudioError) or output == STANDARD:
            raise
        raise LMStudioOSError(f"cannot write {str(output)!r}: {error.strerror or error}") from error


def _model(client: Client, name: str | None, ttl: int) -> tuple[EmbeddingModel, str]:
    """Return the embedding model, loaded, with its key."""
    loaded = loaded_models(client, "embedding")
    if name is None:
        choice = choose(loaded, downloaded_models(client, "embedding"))
        if choice is None:
            raise LMStudioValueError(
                f"no embedding model is loaded, and none below {SIZE_LIMIT / 1e9:g} GB is downloaded; name one with "
                "--model, or download one with `lmsi get`"
            )
        name = choice.name
    elif name not in {info.identifier for info in loaded}:
        name = find_key(name, downloaded_models(client), "embedding")
    with progress_bar(f"Loading {name}") as show:
        handle = client.embedding.model(name, ttl=ttl, load_policy="explicit", on_load_progress=show)
    return handle.with_retries(RETRIES), handle.get_info().model_key


def run(job: Job, output: Output, handle: EmbeddingModel) -> None:
    """Embed all rows that the output does not have yet."""
    done = output.rows
    if done:
        note(f"Resuming after {counted(done, 'row')}.")
    without_text = 0
    try:
        with output, _interruptible() as uninterrupted, _progress(job, done) as show:
            for batch in job.rows.batches(job.batch_size, done):
                with uninterrupted():
                    vectors = embed_batch(handle, batch, job.length_policy, job.prefix)
                    output.write(batch, vectors)
                without_text += vectors.count(None)
                show(output.rows)
            output.finish()
    except KeyboardInterrupt:
        if job.output != STANDARD:
            again = "; run the same command again to continue" if output.is_resumable else ""
            note(f"Interrupted after {counted(output.rows, 'row')}{again}.")
        raise
    if without_text:
        note(f"{counted(without_text, 'row')} without text; the vector is null.")
    if job.output != STANDARD:
        note(f"Wrote {counted(output.rows, 'row')} to {job.output}.")


def embed_batch(handle: EmbeddingModel, batch: Batch, policy: LengthPolicy, prefix: str) -> list[list[float] | None]:
    """Return the vectors of a batch; a row without text has none.

    Raises:
        LMStudioError: If that fails; the message names the rows.
    """
    vectors: list[list[float] | None] = [None] * len(batch.texts)
    texts = {index: text for index, text in enumerate(batch.texts) if text and not text.isspace()}
    labels = [batch.labels[index] for index in texts]
    request = EmbeddingRequest(list(texts.values()), policy, "the length of the texts", prefix, labels=labels)
    try:
        found = handle.embed_texts(request) if texts else []
    except LMStudioContextOverflowError as error:
        if not str(error).startswith(tuple(f"{label} has " for label in labels)):
            raise _with_place(error, labels) from error
        problem = str(error).partition("; ")[0]
        raise LMStudioError(
            f"{problem}; shorten it, or embed it in parts with --length-policy average, or its beginning with truncate"
        ) from error
    except LMStudioError as error:
        raise _with_place(error, labels) from error
    for index, vector in zip(texts, found, strict=True):
        vectors[index] = vector
    return vectors


def _with_place(error: LMStudioError, labels: list[str]) -> LMStudioError:
    place = labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"
    return LMStudioError(f"{place}: {error}")


@contextlib.contextmanager
def _interruptible() -> Generator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Provide a context manager for whose blocks Ctrl-C waits; a second Ctrl-C does not wait."""
    is_busy = is_requested = False

    def interrupt() -> None:
        nonlocal is_requested
        if not is_busy or is_requested:
            raise KeyboardInterrupt
        is_requested = True
        note("Finishing the current batch; press Ctrl-C again to stop at once.")

    @contextlib.contextmanager
    def uninterrupted() -> Generator[None]:
        nonlocal is_busy
        is_busy = True
        try:
            yield
        finally:
            is_busy = False
        if is_requested:
            raise KeyboardInterrupt

    with on_interrupt(interrupt):
        yield uninterrupted


@contextlib.contextmanager
def _progress(job: Job, done: int) -> Generator[Callable[[int], None]]:
    """Show how many rows are done, on a terminal that does not show the results."""
    if not notes().is_terminal or (job.output == STANDARD and results().is_terminal):
        yield lambda _: None
        return
    total = job.rows.count()
    if total is None:
        with progress_display(SpinnerColumn(), "{task.description}", transient=True) as progress:
            task = progress.add_task(_counted(done))
            yield lambda rows: progress.update(task, description=_counted(rows))
        return
    with progress_bar("Embedding") as show:
        show(done / max(total, 1))
        yield lambda rows: show(min(rows / max(total, 1), 1.0))


def _counted(rows: int) -> str:
    return f"Embedding: {rows:,} rows"
