"""Leave out the rows that an earlier run has done: `resume_from`. `stages.py` calls it.

The keys of the earlier output are read once, in the driver, and lie in Ray's object store, from where every task that
filters a block reads them without a copy.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from os import PathLike, fspath
from typing import Any

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.ray._arrow import pyarrow

_logger = logging.getLogger(__name__)


def remaining(dataset: Any, key: str, output: str | PathLike[str], error_column: str) -> Any:
    """Return the rows of a dataset whose key the output of an earlier run lacks, or has with an error only.

    Args:
        dataset: The dataset.
        key: The column that identifies a row, in both.
        output: A folder or a file of Parquet, or its URI. It need not exist yet.
        error_column: The column of the output with the errors; it need not have one.

    Raises:
        LMStudioValueError: If the output has no column of the key.
    """
    keys = done_keys(fspath(output), key, error_column)
    if not len(keys):
        return dataset
    reference = import_module("ray").put(keys)
    without = partial(_without, key=key, references=[reference])
    return dataset.map_batches(without, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)


def done_keys(output: str, key: str, error_column: str) -> Any:
    """Return the keys of the rows that an earlier run has done, as an Arrow array.

    Raises:
        LMStudioValueError: If the output has no column of the key, or keys of different types.
    """
    arrow = pyarrow()
    parts = [part for path in _files(output) for part in _keys_of(*path, key, error_column)]
    if not parts:
        return arrow.array([])
    try:
        return arrow.concat_arrays([part.cast(parts[0].type) for part in parts])
    except arrow.ArrowInvalid as error:
        raise LMStudioValueError(f"resume_from={output!r} has keys {key!r} of different types: {error}") from error


def _files(output: str) -> Iterator[tuple[Any, str]]:
    """Yield each Parquet file of an output with its file system."""
    fs = import_module("pyarrow.fs")
    system, path = fs.FileSystem.from_uri(output) if "://" in output else (fs.LocalFileSystem(), output)
    info = system.get_file_info(path)
    if info.type == fs.FileType.File:
        yield system, path
    elif info.type == fs.FileType.Directory:
        infos = system.get_file_info(fs.FileSelector(path, recursive=True))
        yield from ((system, each.path) for each in infos if each.is_file and each.path.endswith(".parquet"))


def _keys_of(system: Any, path: str, key: str, error_column: str) -> list[Any]:
    """Return the keys of one file. A file that was being written when its run was killed is left out."""
    arrow = pyarrow()
    try:
        file = import_module("pyarrow.parquet").ParquetFile(system.open_input_file(path))
    except arrow.ArrowInvalid as error:
        _logger.warning("%s is no complete Parquet file, and its rows are done again; delete it: %s", path, error)
        return []
    names = file.schema_arrow.names
    if key not in names:
        raise LMStudioValueError(f"resume_from: {path!r} has no column {key!r}; it has {', '.join(map(repr, names))}")
    table = file.read(columns=[name for name in (key, error_column) if name in names])
    if error_column in names:
        table = table.filter(table[error_column].is_null())
    chunks: list[Any] = table[key].chunks
    return chunks


def _without(batch: Any, *, key: str, references: Sequence[Any]) -> Any:
    """Return the rows of a batch whose keys are not among those of an object of Ray."""
    keys = import_module("ray").get(references[0])
    column = batch[key]
    done = import_module("pyarrow.compute").is_in(column, value_set=keys.cast(column.type))
    return batch.filter(import_module("pyarrow.compute").invert(done))
