"""The public methods that make calls, and those that the rows of a table make: tests compare both."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import MagicMock

from lmstudio_integrations.client.api.sync import (
    LLM,
    Client,
    EmbeddingModel,
    FilesNamespace,
    LlmNamespace,
    RepositoryNamespace,
    SystemNamespace,
)

RECEIVERS: dict[str, Iterable[type]] = {
    "": [Client],
    "llm": [LlmNamespace],
    "system": [SystemNamespace],
    "files": [FilesNamespace],
    "repository": [RepositoryNamespace],
    "model": [LLM, EmbeddingModel],
}
"""The classes whose methods make calls, by where they stand on a client; a handle stands for itself."""

WITHOUT_CALLS = {
    "close",
    "with_timeouts",
    "llm.as_downloaded",
    "llm.handle_for",
    "llm.lazy_model",
    "model.with_retries",
    "model.with_timeouts",
}
"""Public methods that send nothing."""


def calls() -> set[str]:
    """Return every public method that makes a call, such as `llm.unload` and `model.respond`."""
    methods = {
        f"{place}.{name}".lstrip(".")
        for place, classes in RECEIVERS.items()
        for each in classes
        for name, _ in inspect.getmembers(each, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods >= WITHOUT_CALLS, f"no methods: {WITHOUT_CALLS - methods}"
    return methods - WITHOUT_CALLS


def made_calls(rows: Iterable[Callable[..., Any]], *receivers: str) -> set[str]:
    """Return the methods that rows of a table call, each row with a stand-in for each of its parameters."""
    return {name for row in rows for name in _calls_of(row, receivers)}


def _calls_of(row: Callable[..., Any], receivers: tuple[str, ...]) -> Iterator[str]:
    stands_for = [MagicMock() for _ in receivers]
    row(*stands_for)
    for receiver, stand_in in zip(receivers, stands_for, strict=True):
        for path, _, _ in stand_in.mock_calls:
            _, of_handle, name = path.partition("().")
            # Both kinds of model have the same methods in their namespaces.
            yield f"model.{name}" if of_handle else f"{receiver}.{path}".lstrip(".").replace("embedding.", "llm.")
