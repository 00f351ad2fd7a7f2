"""Reads the rows of `embed` and `rerank`: lines of text, JSON lines, or Parquet.

`__init__.py` embeds the texts, and `output.py` writes the rows with their vectors.
"""

import json
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from pydantic_core import to_json  # noqa: TID251 - strings of Arrow are UTF-8, and only it writes bytes

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

InputFormat: TypeAlias = Literal["text", "jsonl", "parquet"]
OutputFormat: TypeAlias = Literal["jsonl", "parquet"]

STANDARD = Path("-")
"""Stands for stdin and stdout."""

PARQUET_ROWS = 2048
"""Rows of Parquet that are held in memory at once, and of one row group that is written."""

_SUFFIXES: dict[str, InputFormat] = {
    "": "text",
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def arrow() -> Any:
    """Return the module `pyarrow` with `pyarrow.parquet`. It is optional and has no types."""
    import_module("pyarrow.parquet")
    return import_module("pyarrow")


class Columns(NamedTuple):
    """The names of the columns: of the text, and of those that `embed` adds."""

    text: str
    vector: str = ""
    model: str = ""


class Row(NamedTuple):
    """A row of the input."""

    label: str
    """What errors call it: its line or its number."""
    text: str | None
    members: str
    """The row as a JSON object without its last brace. That of a JSON line is unchanged."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of an input.

    Attributes:
        path: The file, or `-`.
        kind: Its format.
        columns: The names of the columns.
        only_text: Whether the rows of Parquet have only their text.
    """

    path: Path
    kind: InputFormat
    columns: Columns
    only_text: bool = False

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            LMStudioValueError: If a row has no such text; the message names it.
        """
        return {"text": self._text_rows, "jsonl": self._json_rows, "parquet": self._parquet_rows}[self.kind]()

    def count(self) -> int | None:
        """Return the number of rows, if it is known before all are read. May be too high."""
        if self.path == STANDARD:
            return None
        if self.kind == "parquet":
            with self.open_parquet() as file:
                return int(file.metadata.num_rows)
        with self.path.open("rb") as file:
            return sum(1 for _ in file)

    def _text_rows(self) -> Iterator[Row]:
        for label, line in self._lines():
            yield Row(label, line, json.dumps({self.columns.text: line}, ensure_ascii=False)[:-1])

    def _json_rows(self) -> Iterator[Row]:
        for label, line in self._lines():
            if not (line := line.strip()):
                continue
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LMStudioValueError(f"{label} is not JSON: {error}") from error
            if not is_object(row):
                raise LMStudioValueError(f"{label} is not a JSON object; each line must be one")
            self._check_names(label, row)
            yield self._row(label, row, line[:-1].rstrip())

    def _parquet_rows(self) -> Iterator[Row]:
        with self.open_parquet() as file:
            names = [self.columns.text] if self.only_text else None
            tables = file.iter_batches(batch_size=PARQUET_ROWS, columns=names)
            for number, row in enumerate((row for table in tables for row in table.to_pylist()), 1):
                text = to_json(row, bytes_mode="base64", inf_nan_mode="null").decode()
                yield self._row(f"row {number}", row, text[:-1])

    def _lines(self) -> Iterator[tuple[str, str]]:
        with self._open() as file:
            for number, line in enumerate(file, 1):
                label = f"line {number}"
                try:
                    yield label, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    problem = f"{label} is not UTF-8 ({error.reason}); convert the file first"
                    raise LMStudioValueError(problem) from error

    @contextmanager
    def _open(self) -> Generator[BinaryIO]:
        if self.path == STANDARD:
            yield sys.stdin.buffer
            return
        with self.path.open("rb") as file:
            yield file

    @contextmanager
    def open_parquet(self) -> Generator[Any]:
        """Open the Parquet file.

        Raises:
            LMStudioValueError: If it is none, or has no column of texts.
        """
        pa = arrow()
        try:
            file: Any = pa.parquet.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise LMStudioValueError(f"{str(self.path)!r} is not a Parquet file: {error}") from error
        with file:
            self._check_names(repr(str(self.path)), file.schema_arrow.names)
            yield file

    def _row(self, label: str, row: dict[str, Any], members: str) -> Row:
        name = self.columns.text
        text: object = row[name]
        if text is not None and not isinstance(text, str):
            raise LMStudioValueError(f"the field {name!r} of {label} must be a string; it is {type(text).__name__}")
        return Row(label, text, members)

    def _check_names(self, label: str, names: Any) -> None:
        """Reject a row without a text, or with a column that this command would add a second time."""
        for flag, name in (("--vector-field", self.columns.vector), ("--model-field", self.columns.model)):
            if name and name in names:
                raise LMStudioValueError(f"{label} has a field {name!r} already; choose another name with {flag}")
        if self.columns.text not in names:
            choices = ", ".join(names)
            raise LMStudioValueError(
                f"{label} has no field {self.columns.text!r}; choose one of {choices} with --field"
            )


def rows_of(path: Path, requested: InputFormat | None, columns: Columns, *, only_text: bool = False) -> Rows:
    """Return the rows of a file.

    Raises:
        LMStudioValueError: If its format is not known, or cannot be read.
    """
    kind = requested or _SUFFIXES.get("" if path == STANDARD else path.suffix.lower())
    if kind is None:
        suffixes = ", ".join(filter(None, _SUFFIXES))
        raise LMStudioValueError(f"the format of {str(path)!r} is not known; name it {suffixes}, or set --input-format")
    if kind == "parquet":
        _check_parquet(is_stream=path == STANDARD)
    if path != STANDARD and not path.is_file():
        raise LMStudioOSError(f"cannot read {str(path)!r}: there is no such file; to read a pipe, use - as input")
    return Rows(path, kind, columns, only_text)


def output_format_of(path: Path, requested: OutputFormat | None, *, is_stream: bool) -> OutputFormat:
    """Return the format of the output: JSON lines in a stream, unless its name has the suffix of Parquet.

    Raises:
        LMStudioValueError: If it is not known, or cannot be written.
    """
    kind = requested or _SUFFIXES.get(path.suffix.lower())
    if requested is None and is_stream and kind != "parquet":
        return "jsonl"
    if kind is None or kind == "text":
        raise LMStudioValueError(
            f"cannot write the format of {str(path)!r}; name it .jsonl or .parquet, or set --output-format"
        )
    if kind == "parquet":
        _check_parquet(is_stream=is_stream)
    return kind


def _check_parquet(*, is_stream: bool) -> None:
    if is_stream:
        raise LMStudioValueError("Parquet cannot be read from or written to a pipe; name a file")
    if find_spec("pyarrow") is None:
        raise LMStudioValueError(f"Parquet needs pyarrow; run: {package_command('pyarrow')}")
