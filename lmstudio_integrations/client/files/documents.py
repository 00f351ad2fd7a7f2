"""Documents among the uploaded files: read their text, and search in them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypedDict, runtime_checkable

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.files.uploads import ensure_uploaded
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.queries import link_status, list_wire_infos
from lmstudio_integrations.client.models.state import device_of, matches
from lmstudio_integrations.client.support.arguments import (
    check_callbacks,
    check_names,
    list_of,
    optional_text,
    text_of,
    whole_number,
)
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.client.transport.operation import CallbackEffect, Operation
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.protocol.errors import details_of
from lmstudio_integrations.protocol.kv_config import fields_of
from lmstudio_integrations.protocol.requests import ParseDocument, Retrieve
from lmstudio_integrations.types.documents import ParsedDocument, RetrievalResult
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.machines import LOCAL


@runtime_checkable
class EmbeddingHandle(Protocol):
    """A handle to an embedding model."""

    @property
    def _model(self) -> Model:
        """What it refers to."""
        ...

    @property
    def identifier(self) -> str:
        """The identifier of the loaded instance."""
        ...


class RetrievalParameters(TypedDict, total=False):
    """The keyword arguments of `retrieve`.

    Attributes:
        limit: The maximum number of passages to return.
        embedding_model: The embedding model, as its handle or its key.
        chunking_method: How to split documents: `{"type": "recursive-v1", "chunkSize": …, "chunkOverlap": …}`.
        on_progress: Called with the number of the file, the step (`loading`, `chunking` or `embedding`) and its
            progress, from 0.0 to 1.0.
        show_progress: Whether to show a progress bar for each step.
    """

    limit: int | None
    embedding_model: EmbeddingHandle | str | None
    chunking_method: dict[str, Any] | None
    on_progress: Callable[[int, str, float], Any] | None
    show_progress: bool


_RETRIEVAL_KEYS = {
    "limit": "retrieval.limit",
    "embedding_model": "retrieval.embeddingModel",
    "chunking_method": "retrieval.chunkingMethod",
}


def parse_document(
    operation: Operation,
    handle: FileHandle,
    on_progress: Callable[[float], Any] | None,
    *,
    show_progress: bool,
) -> Flow[ParsedDocument]:
    """Return the text of an uploaded document."""
    check_callbacks(on_progress=on_progress)
    valid = yield from ensure_uploaded(operation, handle)
    bar = ProgressBar(f"Parsing {valid.name}", shown=show_progress, on_progress=on_progress)
    parameter = ParseDocument(fileIdentifier=valid.identifier, parseOpts={})

    def decode_packet(packet: dict[str, Any]) -> CallbackEffect | ParsedDocument | None:
        if packet["type"] == "progress" and bar.is_used:
            return CallbackEffect(bar.report, float(packet["progress"]))
        return ParsedDocument.from_dict(packet) if packet["type"] == "result" else None

    label = "Document parsing"
    with bar:
        return (yield from operation.read_channel("files", "parseDocument", parameter, decode_packet, label=label))


def retrieve(
    operation: Operation, query: str, files: Sequence[FileHandle], parameters: RetrievalParameters
) -> Flow[RetrievalResult]:
    """Search uploaded documents."""
    check_names(parameters, RetrievalParameters.__annotations__)
    text_of(query, "query")
    whole_number(parameters.get("limit"), "limit")
    embedding_model = _key_of(parameters.get("embedding_model"))
    files = list_of(files, "files")
    if not files:
        raise LMStudioValueError("retrieval needs at least one file")
    valid: list[str] = []
    for handle in files:
        valid += [(yield from ensure_uploaded(operation, handle)).identifier]
    arguments: Mapping[str, Any] = {**parameters, "embedding_model": embedding_model}
    fields: dict[str, Any] = {
        key: arguments[name] for name, key in _RETRIEVAL_KEYS.items() if arguments.get(name) is not None
    }
    parameter = Retrieve(query=query, fileIdentifiers=valid, config=fields_of(fields))
    steps = _Steps([handle.name for handle in files], parameters)

    def decode_packet(packet: dict[str, Any]) -> CallbackEffect | RetrievalResult | None:
        if packet["type"] == "onFileProcessingStepProgress" and steps.are_reported:
            return CallbackEffect(steps.report, int(packet["index"]), str(packet["step"]), float(packet["progress"]))
        return RetrievalResult.from_dict(packet["result"]) if packet["type"] == "result" else None

    with steps:
        try:
            return (yield from operation.read_channel("files", "retrieve", parameter, decode_packet, label="Retrieval"))
        except LMStudioModelNotFoundError as error:
            yield from _reject_linked(operation, embedding_model, error)
            raise


def _reject_linked(operation: Operation, name: str | None, error: LMStudioModelNotFoundError) -> Flow[None]:
    """Say which linked device has the embedding model, if one has: LM Studio then says that there is no such model."""
    loaded = yield from list_wire_infos(operation, "embedding")
    for info in loaded:
        device = device_of(info).get("deviceIdentifier")
        if device is not None and (name is None or matches(name, info)):
            peers = (yield from link_status(operation)).peers
            known = next((each.device_name for each in peers if each.device_identifier == device), device)
            raise LMStudioUnsupportedError(
                f"{error}; {info['identifier']!r} is loaded on the linked device {known!r}, and the server searches "
                "with models of its own machine: pass one as embedding_model, such as client.embedding.model("
                f"{info['modelKey']!r}, device={LOCAL!r})",
                **details_of(error),
            ) from error


def _key_of(model: EmbeddingHandle | str | None) -> str | None:
    """Return how the server finds an embedding model."""
    if not isinstance(model, EmbeddingHandle):
        return optional_text(model, "embedding_model")
    if model._model.state.kind != "embedding":  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - a handle of ours
        raise LMStudioValueError(f"embedding_model must be an embedding model; got {model!r}")
    return model.identifier


class _Steps(ExitStack):
    """Reports the steps of a retrieval, and draws a bar for each if that is requested."""

    def __init__(self, names: Sequence[str], parameters: RetrievalParameters) -> None:
        super().__init__()
        self._names = names
        self._on_progress = parameters.get("on_progress")
        self._show_progress = parameters.get("show_progress", False)
        self._bars: dict[tuple[int, str], ProgressBar] = {}

    @property
    def are_reported(self) -> bool:
        return self._show_progress or self._on_progress is not None

    def report(self, index: int, step: str, progress: float) -> None:
        bar = self._bars.get((index, step))
        if bar is None:
            label = f"{step.capitalize()} {self._names[index]}"
            bar = ProgressBar(label, shown=self._show_progress, on_progress=self._on_progress)
            self._bars[index, step] = self.enter_context(bar)
        bar.report(progress, index, step, progress)
