"""Reads the rows of `embed` and `rerank`: lines of text, JSON lines, or Parquet, in batches and with their numbers.

Memory is bounded by a batch. `__init__.py` embeds the texts, and `output.py` writes the rows with their vectors.
"""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, TypeAlias

from pydantic_core import to_json  # noqa: TID251 - strings of Arrow are UTF-8, and only it writes bytes

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

InputFormat: TypeAlias = Literal["text", "jsonl", "parquet"]
OutputFormat: TypeAlias = Literal["jsonl", "parquet"]

STANDARD = Path("-")
"""Stands for stdin and stdout."""

_SUFFIXES: dict[str, InputFormat] = {
    "": "text",
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_BLOCK = 1 << 20
"""Bytes that are read at once where only bytes count."""


def arrow() -> Any:
    """Return the module `pyarrow`, which is optional and has no types."""
    return import_module("pyarrow")


def arrow_parquet() -> Any:
    return import_module("pyarrow.parquet")


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns: of the text, and of those that `embed` adds."""

    text: str
    vector: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are embedded together.

    Attributes:
        labels: What errors call each row: its line or its number.
        texts: The text of each row; `None` if it has none.
        members: Each row as a JSON object without its last brace, unchanged from the input.
        table: The rows as an Arrow table, if they come from Parquet; there are no `members` then.
    """

    labels: list[str]
    texts: list[str | None]
    members: list[str] = field(default_factory=list[str])
    table: Any = None

    def to_members(self) -> list[str]:
        """Return each row as a JSON object without its last brace."""
        if self.table is None:
            return self.members
        return [to_json(row, bytes_mode="base64").decode()[:-1] for row in self.table.to_pylist()]

    def to_table(self) -> Any:
        if self.table is not None:
            return self.table
        return arrow().Table.from_pylist([json.loads(f"{row}}}") for row in self.members])


class Rows(ABC):
    """The rows of an input.

    Args:
        path: The file, or `-`.
        columns: The names of the columns.
    """

    name: ClassVar[InputFormat]
    """The name of the format."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns

    @abstractmethod
    def count(self) -> int | None:
        """Return the number of rows, if it is known before all are read. May be too high."""

    @abstractmethod
    def batches(self, size: int, skip: int) -> Iterator[Batch]:
        """Yield the rows after the first `skip` ones.

        Raises:
            LMStudioValueError: If a row has no such text; the message names it.
        """

    def check_name(self, label: str, names: Any) -> None:
        """Reject columns that this command would add a second time."""
        for flag, name in (("--vector-field", self.columns.vector), ("--model-field", self.columns.model)):
            if name and name in names:
                raise LMStudioValueError(f"{label} has a field {name!r} already; choose another name with {flag}")


@contextmanager
def _open(path: Path) -> Generator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise LMStudioOSError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


class _Lines(Rows):
    """An input of lines."""

    @contextmanager
    def _open(self) -> Generator[BinaryIO]:
        if self.path == STANDARD:
            yield sys.stdin.buffer
            return
        with _open(self.path) as file:
            yield file

    def count(self) -> int | None:
        if self.path == STANDARD:
            return None
        with self._open() as file:
            blocks = iter(partial(file.read, _BLOCK), b"")
            number, last = 0, b"\n"
            for block in blocks:
                number, last = number + block.count(b"\n"), block[-1:]
        return number + (last != b"\n")

    def _lines(self, file: BinaryIO) -> Iterator[tuple[str, str]]:
        for number, line in enumerate(file, 1):
            label = f"line {number}"
            try:
                yield label, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise LMStudioValueError(f"{label} is not UTF-8 ({error.reason}); convert the file first") from error

    def batches(self, size: int, skip: int) -> Iterator[Batch]:
        with self._open() as file:
            rows = self._rows(file, skip)
            while chunk := list(islice(rows, size)):
                labels, texts, members = zip(*chunk, strict=True)
                yield Batch(list(labels), list(texts), list(members))

    @abstractmethod
    def _rows(self, file: BinaryIO, skip: int) -> Iterator[tuple[str, str | None, str]]:
        """Yield label, text and members of each row after the first ones."""


class TextRows(_Lines):
    """A text on each line. A blank line is a row without text."""

    name = "text"

    def _rows(self, file: BinaryIO, skip: int) -> Iterator[tuple[str, str | None, str]]:
        for label, line in islice(self._lines(file), skip, None):
            yield label, line, json.dumps({self.columns.text: line}, ensure_ascii=False)[:-1]


class JsonRows(_Lines):
    """A JSON object on each line. Blank lines are skipped."""

    name = "jsonl"

    def _rows(self, file: BinaryIO, skip: int) -> Iterator[tuple[str, str | None, str]]:
        rows = ((label, line.strip()) for label, line in self._lines(file))
        for label, line in islice(((label, line) for label, line in rows if line), skip, None):
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LMStudioValueError(f"{label} is not JSON: {error}") from error
            if not is_object(row):
                raise LMStudioValueError(f"{label} is not a JSON object; each line must be one")
            self.check_name(label, row)
            yield label, text_of_field(label, row, self.columns.text), line[:-1].rstrip()


def text_of_field(label: str, row: Any, name: str) -> str | None:
    """Return the text of a row.

    Raises:
        LMStudioValueError: If there is no such field, or it has another type.
    """
    if name not in row:
        raise LMStudioValueError(f"{label} has no field {name!r}; choose one of {', '.join(row)} with --field")
    value: object = row[name]
    if value is not None and not isinstance(value, str):
        raise LMStudioValueError(f"the field {name!r} of {label} must be a string; it is {type(value).__name__}")
    return value


class ParquetRows(Rows):
    """A Parquet file. Needs pyarrow."""

    name = "parquet"

    def _file(self) -> Any:
        try:
            file: Any = arrow_parquet().ParquetFile(self.path)
        except OSError as error:
            raise LMStudioOSError(f"cannot read {str(self.path)!r}: {error.strerror or error}") from error
        except arrow().ArrowInvalid as error:
            raise LMStudioValueError(f"{str(self.path)!r} is not a Parquet file: {error}") from error
        return file

    def count(self) -> int | None:
        with self._file() as file:
            return int(file.metadata.num_rows)

    def batches(self, size: int, skip: int) -> Iterator[Batch]:
        with self._file() as file:
            self._check(file.schema_arrow)
            start = 0
            for part in file.iter_batches(batch_size=size):
                rows = part.slice(min(max(skip - start, 0), part.num_rows))
                first = start + part.num_rows - rows.num_rows + 1
                start += part.num_rows
                if rows.num_rows:
                    texts = rows.column(self.columns.text).to_pylist()
                    labels = [f"row {first + index}" for index in range(len(texts))]
                    yield Batch(labels, texts, table=arrow().Table.from_batches([rows]))

    def _check(self, schema: Any) -> None:
        pa = arrow()
        name = self.columns.text
        self.check_name(f"{str(self.path)!r}", schema.names)
        if name not in schema.names:
            names = ", ".join(schema.names)
            raise LMStudioValueError(f"{str(self.path)!r} has no column {name!r}; choose one of {names} with --field")
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise LMStudioValueError(f"the column {name!r} must have strings; it has the type {kind}")


_ROWS: dict[InputFormat, type[Rows]] = {kind.name: kind for kind in (TextRows, JsonRows, ParquetRows)}


def rows_of(path: Path, requested: InputFormat | None, columns: Columns) -> Rows:
    """Return the rows of a file.

    Raises:
        LMStudioValueError: If its format is not known, or cannot be read.
    """
    kind = requested or _SUFFIXES.get("" if path == STANDARD else path.suffix.lower())
    if kind is None:
        suffixes = ", ".join(filter(None, _SUFFIXES))
        raise LMStudioValueError(f"the format of {str(path)!r} is not known; name it {suffixes}, or set --input-format")
    if kind == "parquet":
        check_parquet(is_stream=path == STANDARD)
    if path != STANDARD and not path.is_file():
        raise LMStudioOSError(f"cannot read {str(path)!r}: {_why_no_file(path)}")
    return _ROWS[kind](path, columns)


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    if path.exists():
        return "it is no regular file; to read a pipe, use - as input"
    return "there is no such file"


def output_format_of(path: Path, requested: OutputFormat | None, *, is_stream: bool) -> OutputFormat:
    """Return the format of the output: JSON lines in a stream, unless its name has the suffix of Parquet.

    Raises:
        LMStudioValueError: If it is not known, or cannot be written.
    """
    if requested is None and is_stream and _SUFFIXES.get(path.suffix.lower()) != "parquet":
        return "jsonl"
    kind = requested or _SUFFIXES.get(path.suffix.lower())
    if kind is None or kind == "text":
        raise LMStudioValueError(
            f"cannot write the format of {str(path)!r}; name it .jsonl or .parquet, or set --output-format"
        )
    if kind == "parquet":
        check_parquet(is_stream=is_stream)
    return kind


def check_parquet(*, is_stream: bool) -> None:
    """Reject Parquet in a pipe, and without pyarrow."""
    if is_stream:
        raise LMStudioValueError("Parquet cannot be read from or written to a pipe; name a file")
    if find_spec("pyarrow") is None:
        raise LMStudioValueError(f"Parquet needs pyarrow; run: {package_command('pyarrow')}")


def fingerprint(path: Path) -> str | None:
    """Return a hash of a file, by which it is recognized; `None` for stdin, which cannot be read twice."""
    if path == STANDARD:
        return None
    digest = hashlib.blake2b(digest_size=16)
    with _open(path) as file:
        for block in iter(partial(file.read, _BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
