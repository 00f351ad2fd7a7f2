"""Writes the rows of `embed`: to a stream, or first into a folder next to the file, from which a run can be resumed.

The folder `FILE.partial` has the settings of the run (`state.json`) and the rows so far: `rows.jsonl`, or one Parquet
file for every few thousand rows. At the end they become the file by renaming, so that it is complete if it exists. Only
regular files are replaced in this way: links are followed, and stdout, pipes and devices are streams.
"""

import contextlib
import json
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO, TypeAlias

from lmstudio_integrations._support.json_text import dumps
from lmstudio_integrations._support.text import printable_json
from lmstudio_integrations.cli._embed.rows import STANDARD, Batch, Columns, OutputFormat, arrow, arrow_parquet
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

Vectors: TypeAlias = Sequence[list[float] | None]

PART_ROWS = 2048
"""Rows of one Parquet file in the folder, and of one row group of the result."""

_STATE, _LINES, _WHOLE, _LOCK = "state.json", "rows.jsonl", "whole.parquet", "lock"


class Output(ABC):
    """Where rows are written. An error that ends its `with` block suspends it.

    Attributes:
        rows: The number of rows that are written.
        is_resumable: Whether another run can continue.
    """

    rows: int = 0
    is_resumable: bool = True

    @abstractmethod
    def write(self, batch: Batch, vectors: Vectors) -> None: ...

    @abstractmethod
    def suspend(self) -> None:
        """Save what was written, so that another run can continue."""

    @abstractmethod
    def finish(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.suspend()


class JsonLines:
    """Makes the lines of JSONL output.

    Args:
        columns: The names of the columns.
        model: The key of the model.
    """

    def __init__(self, columns: Columns, model: str) -> None:
        self._vector = f", {json.dumps(columns.vector)}: "
        self._end = f", {json.dumps(columns.model)}: {json.dumps(model)}}}\n"

    def __call__(self, batch: Batch, vectors: Vectors) -> bytes:
        """Return the lines of some rows."""
        rows = zip(batch.to_members(), vectors, strict=True)
        return "".join(f"{row}{self._vector}{dumps(vector)}{self._end}" for row, vector in rows).encode()


class StreamOutput(Output):
    """Writes JSONL to a stream."""

    is_resumable = False

    def __init__(self, stream: TextIO, columns: Columns, model: str) -> None:
        self._stream = stream
        self._lines = JsonLines(columns, model)

    def write(self, batch: Batch, vectors: Vectors) -> None:
        lines = self._lines(batch, vectors).decode()
        self._stream.write(printable_json(lines) if self._stream.isatty() else lines)
        self._stream.flush()
        self.rows += len(batch.texts)

    def suspend(self) -> None:
        """Save nothing, because a stream cannot be resumed."""

    def finish(self) -> None:
        pass


class Folder:
    """The folder of an unfinished output.

    Args:
        output: The file that it becomes, or a link to it.

    Attributes:
        output: As the user has named it.
        target: The file.
        path: The folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.target = Path(os.path.realpath(output)) if output.is_symlink() else output
        self.path = self.target.with_name(f"{self.target.name}.partial")

    @property
    def state(self) -> dict[str, Any] | None:
        """The settings of the run that has begun; `None` without one."""
        try:
            state: dict[str, Any] = json.loads((self.path / _STATE).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LMStudioValueError(
                f"cannot resume from {str(self.path)!r}: {_STATE} cannot be read; {ANEW}"
            ) from error
        return state

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Create the folder, and reserve it for this process while the block runs.

        Raises:
            LMStudioValueError: If another process uses it.
        """
        self.path.mkdir(exist_ok=True)
        with self._lock():
            try:
                yield
            finally:
                self._remove_if_empty()

    @contextlib.contextmanager
    def _lock(self) -> Generator[None]:
        if sys.platform == "win32":
            yield
            return
        import fcntl  # noqa: PLC0415 - not on Windows

        with (self.path / _LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LMStudioValueError(
                    f"another process is writing {str(self.output)!r}; wait for its end"
                ) from error
            yield

    def clear(self) -> None:
        """Remove what an earlier run has written, but no file of others."""
        for pattern in (_STATE, _LINES, "*.new", "part-*.parquet", _WHOLE):
            for path in self.path.glob(pattern):
                path.unlink()

    def begin(self, state: Mapping[str, Any]) -> None:
        """Record the settings of a new run. The file of lines exists before, or else it was renamed at the end."""
        (self.path / _LINES).touch()
        temporary = self.path / f"{_STATE}.new"
        temporary.write_text(json.dumps(state, indent=2), encoding="utf-8")
        temporary.replace(self.path / _STATE)

    def is_finished(self) -> bool:
        """Whether the run was ended after it had renamed the file of lines, and before it removed the folder."""
        return self.target.exists() and self.state is not None and not (self.path / _LINES).exists()

    def replace(self, finished: Path) -> None:
        """Rename the finished file to the output, and clear the folder.

        Raises:
            LMStudioOSError: If it would replace a link, a device or a pipe that was made meanwhile.
        """
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_file()):
            raise LMStudioOSError(
                f"cannot write {str(self.output)!r}: it is no regular file any more; the rows are in {str(self.path)!r}"
            )
        with finished.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        finished.replace(self.target)
        self.clear()

    def _remove_if_empty(self) -> None:
        if not (self.path / _STATE).exists():
            (self.path / _LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it has files of others
                self.path.rmdir()


ANEW = "start over with --overwrite"


class LinesOutput(Output):
    """Writes JSONL to a file. What an earlier run has written is kept, without a torn last line."""

    def __init__(self, folder: Folder, columns: Columns, model: str) -> None:
        self._folder = folder
        self._lines = JsonLines(columns, model)
        self._file = (folder.path / _LINES).open("r+b")
        self.rows = _keep_complete_lines(self._file)

    def write(self, batch: Batch, vectors: Vectors) -> None:
        self._file.write(self._lines(batch, vectors))
        self._file.flush()
        self.rows += len(batch.texts)

    def suspend(self) -> None:
        self._file.close()
        if not self.rows:
            self._folder.clear()

    def finish(self) -> None:
        self._file.close()
        self._folder.replace(self._folder.path / _LINES)


def _keep_complete_lines(file: BinaryIO) -> int:
    """Cut off what follows the last complete line; return the number of lines. The file is then at its end."""
    rows, end = 0, 0
    for line in file:
        # After a loss of power, the end of a file may be zeros.
        if not line.endswith(b"}\n"):
            break
        rows, end = rows + 1, end + len(line)
    file.seek(end)
    file.truncate()
    return rows


class ParquetOutput(Output):
    """Writes a Parquet file, from parts that are complete."""

    def __init__(self, folder: Folder, columns: Columns, model: str) -> None:
        pq = arrow_parquet()
        self._folder = folder
        self._columns = columns
        self._model = model
        self._tables: list[Any] = []
        self._schema: Any = None
        for part in self._parts():
            self.rows += int(pq.read_metadata(part).num_rows)
            self._include(pq.read_schema(part))

    def _parts(self) -> list[Path]:
        return sorted(self._folder.path.glob("part-*.parquet"))

    def _include(self, schema: Any) -> None:
        current = self._schema or schema
        self._schema = (
            current if current == schema else arrow().unify_schemas([current, schema], promote_options="permissive")
        )

    @contextlib.contextmanager
    def _one_type(self) -> Generator[None]:
        """Turn an error about a value of another type than the others of its column into one message."""
        try:
            yield
        except (arrow().ArrowInvalid, arrow().ArrowTypeError) as error:
            raise LMStudioValueError(
                f"Parquet needs columns of one type, and a row after row {self.rows} has another: {error}; write "
                "JSON lines with --output-format jsonl"
            ) from error

    def write(self, batch: Batch, vectors: Vectors) -> None:
        pa = arrow()
        with self._one_type():
            table: Any = batch.to_table()
        table = table.append_column(self._columns.vector, pa.array(vectors, pa.list_(pa.float32())))
        table = table.append_column(self._columns.model, pa.array([self._model] * len(vectors), pa.string()))
        with self._one_type():
            self._include(table.schema)
        self._tables.append(table)
        self.rows += len(vectors)
        if sum(each.num_rows for each in self._tables) >= PART_ROWS:
            self._write_part()

    def _write_part(self) -> None:
        """Write the rows that are not in a part yet, if there are any."""
        if not self._tables:
            return
        pa, pq = arrow(), arrow_parquet()
        path = self._folder.path / f"part-{len(self._parts()):06}.parquet"
        temporary = path.with_suffix(".new")
        pq.write_table(pa.concat_tables(self._tables, promote_options="permissive"), temporary)
        temporary.replace(path)
        self._tables = []

    def suspend(self) -> None:
        self._write_part()
        if not self.rows:
            self._folder.clear()

    def finish(self) -> None:
        pa, pq = arrow(), arrow_parquet()
        self._write_part()
        whole = self._folder.path / _WHOLE
        schema = self._schema if self._schema is not None else self._empty_schema()
        with pq.ParquetWriter(whole, schema) as writer:
            for part in self._parts():
                tables = [schema.empty_table(), pq.read_table(part)]
                writer.write_table(
                    pa.concat_tables(tables, promote_options="permissive").select(schema.names).cast(schema)
                )
        self._folder.replace(whole)

    def _empty_schema(self) -> Any:
        pa = arrow()
        names = (self._columns.text, pa.string()), (self._columns.vector, pa.list_(pa.float32()))
        return pa.schema([*names, (self._columns.model, pa.string())])


_UNWRITABLE = {stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket", stat.S_IFBLK: "block device"}


def is_stdout(output: Path) -> bool:
    """Return whether an output is stdout, also by another name, such as /dev/stdout."""
    if output == STANDARD:
        return True
    try:
        return os.path.samestat(output.stat(), os.fstat(1))
    except OSError:  # there is no such file, or no stdout
        return False


def is_stream(output: Path) -> bool:
    """Return whether rows are written to an output as they come. Any other one is a file, which is replaced at the end.

    Raises:
        LMStudioOSError: If it can be neither.
    """
    if output == STANDARD:
        return True
    try:
        kind = stat.S_IFMT(output.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LMStudioOSError(f"cannot write {str(output)!r}: {error.strerror or error}") from error
    if kind in _UNWRITABLE:
        raise LMStudioOSError(f"cannot write {str(output)!r}: it is a {_UNWRITABLE[kind]}")
    return kind != stat.S_IFREG


@contextlib.contextmanager
def open_stream(output: Path) -> Generator[TextIO]:
    """Open a stream. Nothing is created or truncated, whatever has taken its place meanwhile."""
    if output == STANDARD:
        yield sys.stdout
        return
    with os.fdopen(os.open(output, os.O_WRONLY), "w", encoding="utf-8", newline="\n") as stream:
        yield stream


def check_file(folder: Folder, *, overwrite: bool) -> None:
    """Reject a file that cannot be written, or exists already.

    Raises:
        LMStudioOSError: If it has no folder.
        LMStudioValueError: If it exists, and no run to overwrite it has begun.
    """
    name, parent = str(folder.output), folder.target.parent
    if not parent.is_dir():
        raise LMStudioOSError(f"cannot write {name!r}: there is no folder {str(parent)!r}")
    if overwrite or not folder.target.exists():
        return
    state = folder.state
    if state is None or folder.is_finished() or not state.get("overwrite"):
        raise LMStudioValueError(f"{name!r} exists already; choose another name, or replace it with --overwrite")


def check_state(folder: Folder, state: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Reject to resume a run that had other settings.

    Args:
        folder: The folder of the run.
        state: The settings of this run.
        names: What errors call each setting that must be equal.

    Raises:
        LMStudioValueError: If one differs.
    """
    previous = folder.state or {}
    for name, shown in names.items():
        if name in previous and name in state and previous[name] != state[name]:
            detail = "" if name == "input" else f" ({previous[name]}, now {state[name]})"
            raise LMStudioValueError(
                f"cannot resume {str(folder.output)!r}: it was begun with another {shown}{detail}; repeat the command "
                f"as it was, or {ANEW}"
            )
    if previous and state["input"] is None:
        raise LMStudioValueError(f"cannot resume {str(folder.output)!r} from a pipe; {ANEW}")


FILES: dict[OutputFormat, type[LinesOutput | ParquetOutput]] = {"jsonl": LinesOutput, "parquet": ParquetOutput}
