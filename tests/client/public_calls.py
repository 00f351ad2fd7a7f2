"""The public methods that make calls, and a table with a call of each."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import lmstudio_integrations as lms
from lmstudio_integrations import FileHandle
from lmstudio_integrations.client.api.sync import (
    FilesNamespace,
    LlmNamespace,
    SystemNamespace,
)
from tools.leaves import has_leaf

RECEIVERS: dict[str, Iterable[type]] = {
    "": [lms.Client],
    "llm": [LlmNamespace],
    "system": [SystemNamespace],
    "files": [FilesNamespace],
    "model": [lms.LLM, lms.EmbeddingModel],
}
if has_leaf("downloads"):
    from lmstudio_integrations.client.downloads.sync import RepositoryNamespace

    RECEIVERS["repository"] = [RepositoryNamespace]
"""The classes whose methods make calls, by where they stand on a client; a handle stands for itself."""

WITHOUT_CALLS = {
    "close",
    "with_timeouts",
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


FILE = FileHandle(name="a.txt", identifier="a", size_bytes=1, file_type="text/plain")


def nothing() -> None:
    """Do nothing."""


ROWS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "respond": lambda _, model, __: model.respond("Hi"),
    "reading": lambda _, model, __: model.respond_stream("Hi").wait_for_result(),
    "starting": lambda _, model, __: model.complete_stream("Hi").start(),
    "complete": lambda _, model, __: model.complete("Hi"),
    "act": lambda _, model, __: model.act("Hi", [nothing]),
    "tokenize": lambda _, model, __: model.tokenize("Hi"),
    "count_tokens": lambda _, model, __: model.count_tokens(["Hi"]),
    "apply_prompt_template": lambda _, model, __: model.apply_prompt_template("Hi"),
    "warm": lambda _, model, __: model.warm("Be brief."),
    "rerank": lambda _, model, __: model.rerank("Hi", ["Ho"]),
    "decide": lambda _, model, __: model.decide("Hi", {"a": {"type": "noul", "instructions": "Is it so?"}}),
    "get_context_use": lambda _, model, __: model.get_context_use("Hi"),
    "get_chat_template_info": lambda _, model, __: model.get_chat_template_info(),
    "get_reasoning_replay": lambda _, model, __: model.get_reasoning_replay(),
    "get_info": lambda _, model, __: model.get_info(),
    "get_load_config": lambda _, model, __: model.get_load_config(),
    "get_base_config": lambda _, model, __: model.get_base_config(),
    "get_context_length": lambda _, model, __: model.get_context_length(),
    "get_processing_state": lambda _, model, __: model.get_processing_state(),
    "unload": lambda _, model, __: model.unload(),
    "prepare_images": lambda _, model, __: model.prepare_images([b"\x89PNG\r\n\x1a\n"]),
    "unload_if_loaded_here": lambda _, model, __: model.unload_if_loaded_here(),
    "embed": lambda _, __, embedder: embedder.embed("Hi"),
    "lazy_model": lambda client, _, __: client.llm.lazy_model("chatty").respond("Hi"),
    "a new instance, lazily": lambda client, _, __: client.llm.lazy_model("chatty", load_policy="new_instance").respond(
        "Hi"
    ),
    "model": lambda client, _, __: client.llm.model("chatty"),
    "any model": lambda client, _, __: client.embedding.model(),
    "load_new_instance": lambda client, _, __: client.llm.load_new_instance("chatty"),
    "unload by identifier": lambda client, _, __: client.llm.unload("chatty"),
    "get_model_info": lambda client, _, __: client.llm.get_model_info("chatty"),
    "list_loaded": lambda client, _, __: client.llm.list_loaded(),
    "list_downloaded": lambda client, _, __: client.llm.list_downloaded(),
    "list_loaded_models": lambda client, _, __: client.list_loaded_models(),
    "list_downloaded_models": lambda client, _, __: client.list_downloaded_models(),
    "list_downloaded_models of the system": lambda client, _, __: client.system.list_downloaded_models(),
    "estimate_usage": lambda client, _, __: client.llm.estimate_usage("chatty"),
    "plan": lambda client, _, __: client.plan(["chatty:2048@2"]),
    "hardware": lambda client, _, __: client.hardware(),
    "link_status": lambda client, _, __: client.link_status(),
    "get_version": lambda client, _, __: client.system.get_version(),
    "prepare_image": lambda client, _, __: client.prepare_image(b"\x89PNG\r\n\x1a\n"),
    "prepare_image of files": lambda client, _, __: client.files.prepare_image(b"\x89PNG\r\n\x1a\n"),
    "prepare_file": lambda client, _, __: client.files.prepare_file(b"a", "a.txt"),
    "parse_document": lambda client, _, __: client.files.parse_document(FILE),
    "retrieve": lambda client, _, __: client.files.retrieve("a", [FILE]),
    "search_models": lambda client, _, __: client.repository.search_models("a"),
}
"""A call of each public method: with a client, a handle to a language model, and one to an embedding model."""

_LEAF_OF = {
    "act": "tool_loop",
    "decide": "decisions",
    "get_reasoning_replay": "reasoning_replay",
    "hardware": "hardware",
    "parse_document": "documents",
    "plan": "planning",
    "rerank": "decisions",
    "retrieve": "documents",
    "search_models": "downloads",
}
"""The leaves of rows."""


def of_this_copy(rows: Iterable[Any]) -> list[Any]:
    """Return the rows of a table whose last member calls nothing of a leaf that was deleted."""
    gone = {name for name, leaf in _LEAF_OF.items() if not has_leaf(leaf)}
    return [row for row in rows if gone.isdisjoint(_code_of(row[-1]).co_names)]


def _code_of(call: Any) -> Any:
    return (call.func if isinstance(call, partial) else call).__code__


CALLS = {name: row for name, row in ROWS.items() if name not in _LEAF_OF or has_leaf(_LEAF_OF[name])}
"""The same, of the methods that are in this copy."""
