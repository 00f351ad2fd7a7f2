"""Writes the rows of `embed`: to a stream as they come, or to a file that appears when it is complete.

Until then the rows are JSON lines in `FILE.partial`, also for Parquet, which is not valid before its end. Whole batches
are appended. A write that was interrupted leaves a last line without its end, which is not counted and cut off. Another
run compares the lines with the rows of its input, and appends those that are missing.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lmstudio_integrations._support.json_text import dumps
from lmstudio_integrations._support.text import counted, printable_json
from lmstudio_integrations.cli._common import note
from lmstudio_integrations.cli._embed.rows import PARQUET_ROWS, STANDARD, Columns, OutputFormat, Row, Rows, arrow
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError


def json_line(row: Row, vector: list[float] | None, columns: Columns, model: str) -> str:
    """Return the line of a row with its vector and the key of the model."""
    return f"{_line_start(row, columns)}{dumps(vector)}, {json.dumps(columns.model)}: {json.dumps(model)}}}\n"


def _line_start(row: Row, columns: Columns) -> str:
    return f"{row.members}, {json.dumps(columns.vector)}: "


@contextmanager
def open_stream(output: Path) -> Generator[Callable[[Sequence[str]], None]]:
    """Open stdout, a pipe or a device, and provide the function that writes lines to it."""
    with nullcontext(sys.stdout) if output == STANDARD else output.open("w", encoding="utf-8", newline="\n") as stream:

        def write(lines: Sequence[str]) -> None:
            text = "".join(lines)
            stream.write(printable_json(text) if stream.isatty() else text)
            stream.flush()

        yield write


class Journal:
    """The file `FILE.partial`: the settings of a run in its first line, and a line for each row.

    Args:
        output: The file that the rows become, or a link to it.
        rows: The rows of the input.
        kind: The format of the output.
        overwrite: Whether the output may exist.

    Attributes:
        settings: Those with which the run was begun; none of a new one.
        rows: The number of rows.

    Raises:
        LMStudioOSError: If the file has no folder.
        LMStudioValueError: If the file exists, or `FILE.partial` was not written by this class.
    """

    def __init__(self, output: Path, rows: Rows, kind: OutputFormat, *, overwrite: bool) -> None:
        self.target = Path(os.path.realpath(output)) if output.is_symlink() else output
        self.path = self.target.with_name(f"{self.target.name}.partial")
        self.settings: dict[str, Any] = {}
        self.rows = 0
        self._input = rows
        self._kind = kind
        self._header = b""
        self._end = self._size = 0  # in bytes: of the complete lines, of the whole file
        if not self.target.parent.is_dir():
            raise LMStudioOSError(f"cannot write {str(output)!r}: there is no folder {str(self.target.parent)!r}")
        if self.target.exists() and not overwrite:
            raise LMStudioValueError(
                f"{str(output)!r} exists already; choose another name, or replace it with --overwrite"
            )
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            self._header = file.readline()
        if self._header:
            try:
                self.settings = dict(json.loads(self._header))
            except (ValueError, TypeError) as error:
                raise self._error("it does not begin with the settings of a run") from error

    @contextmanager
    def opened(
        self, settings: Mapping[str, Any], remaining: Iterator[Row]
    ) -> Generator[Callable[[Sequence[str]], None]]:
        """Provide the function that writes lines. At the end of the block, the journal becomes the output.

        Args:
            settings: What must be equal to continue a run.
            remaining: The rows of the input. Those that were written before are taken from it.

        Raises:
            LMStudioValueError: If the rows before had other settings, or another input.
        """
        if self.settings:
            self._resume(settings, remaining)
            note(f"Resuming after {counted(self.rows, 'row')}.")
        else:
            self._header = f"{json.dumps(settings)}\n".encode()
        try:
            yield self._append
            self._finish()
        except BaseException:
            if self.rows:
                note(f"Stopped after {counted(self.rows, 'row')}; run the same command again to continue.")
            raise

    def _resume(self, settings: Mapping[str, Any], remaining: Iterator[Row]) -> None:
        for name, value in settings.items():
            if (before := self.settings.get(name)) != value:
                raise self._error(f"it was begun with another {name} ({before}, now {value})")
        with self.path.open("rb") as file:
            self._end = len(file.readline())
            for line in file:
                if not line.endswith(b"}\n"):  # after a loss of power, the end of a file may be zeros
                    break
                row = next(remaining, None)
                if row is None or not line.startswith(_line_start(row, self._input.columns).encode()):
                    raise self._error(f"its row {self.rows + 1} is not that of the input")
                self._end += len(line)
                self.rows += 1
            self._size = file.seek(0, os.SEEK_END)

    def _append(self, lines: Sequence[str]) -> None:
        content = (b"" if self._end else self._header) + "".join(lines).encode()
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                raise LMStudioValueError(f"another process is writing {str(self.target)!r}; wait for its end")
            file.truncate(self._end)
            file.write(content)
        self._end = self._size = self._end + len(content)
        self.rows += len(lines)

    def _finish(self) -> None:
        self._append([])  # an empty input has no journal yet
        finished = self.target.with_name(f"{self.target.name}.new")
        with self.path.open("rb") as journal, finished.open("wb") as file:
            journal.seek(len(self._header))
            if self._kind == "parquet":
                write_parquet(journal, file, self._input)
            else:
                shutil.copyfileobj(journal, file)
            file.flush()
            os.fsync(file.fileno())
        finished.replace(self.target)
        self.path.unlink()

    def _error(self, problem: str) -> LMStudioValueError:
        name = str(self.path)
        return LMStudioValueError(
            f"cannot continue {name!r}: {problem}; repeat the command as it was, or remove the file to start over"
        )


def write_parquet(journal: BinaryIO, file: BinaryIO, rows: Rows) -> None:
    """Write the lines of a journal as Parquet. An input of Parquet is read again, so that its columns keep their types.

    Raises:
        LMStudioValueError: If JSON lines have a column with values of several types.
    """
    pa, columns, start = arrow(), rows.columns, journal.tell()
    added = [pa.field(columns.vector, pa.list_(pa.float32())), pa.field(columns.model, pa.string())]
    if rows.kind == "parquet":
        with rows.open_parquet() as source:
            schema = source.schema_arrow.append(added[0]).append(added[1])
            with pa.parquet.ParquetWriter(file, schema) as writer:
                for batch in source.iter_batches(batch_size=PARQUET_ROWS):
                    lines = [json.loads(line) for line in islice(journal, batch.num_rows)]
                    arrays = [pa.array([line[field.name] for line in lines], field.type) for field in added]
                    writer.write_table(pa.Table.from_arrays([*batch.columns, *arrays], schema=schema))
        return
    try:
        types = [_infer_schema(chunk, columns) for chunk in _chunks(journal)]
        schema = pa.unify_schemas([*types, pa.schema([(columns.text, pa.string())])], promote_options="permissive")
        schema = schema.append(added[0]).append(added[1])
        journal.seek(start)
        with pa.parquet.ParquetWriter(file, schema) as writer:
            for chunk in _chunks(journal):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    except (pa.ArrowTypeError, ValueError, OverflowError) as error:  # pyarrow's other errors are of Python's classes
        raise LMStudioValueError(
            f"Parquet needs columns of one type: {error}; the same command with --output-format jsonl writes the rows "
            "as JSON lines and embeds nothing again"
        ) from error


def _chunks(journal: BinaryIO) -> Iterator[list[dict[str, Any]]]:
    lines = map(json.loads, journal)
    while chunk := list(islice(lines, PARQUET_ROWS)):
        yield chunk


def _infer_schema(chunk: list[dict[str, Any]], columns: Columns) -> Any:
    """Return the types of the fields that some rows have without what this command has added."""
    names = dict.fromkeys(name for row in chunk for name in row if name not in {columns.vector, columns.model})
    return arrow().table({name: [row.get(name) for row in chunk] for name in names}).schema
