"""Opens a model by the name that a user gave, and lists what is loaded. Shared by the commands that use models."""

from collections.abc import Sequence

from lmstudio_integrations.cli._common import note, progress_bar
from lmstudio_integrations.cli._devices import on_device
from lmstudio_integrations.cli._formatting import file_size
from lmstudio_integrations.cli._model_choice import choose
from lmstudio_integrations.cli._model_names import FoundModel, by_key, find_models, listed
from lmstudio_integrations.cli._questions import has_terminal, pick
from lmstudio_integrations.client.api.sync import LLM, Client, EmbeddingModel, EmbeddingNamespace, LlmNamespace
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioValueError
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo


def loaded_models(client: Client, kind: ModelKind | None = None) -> list[ModelInstanceInfo]:
    """Return the info of the loaded instances, of one kind or of both, by identifier."""
    infos = (info_of(handle) for handle in client.list_loaded_models(kind))
    return sorted((info for info in infos if info), key=lambda info: info.identifier)


def info_of(handle: LLM | EmbeddingModel) -> ModelInstanceInfo | None:
    """Return the info of a loaded instance; `None` if it was unloaded since."""
    try:
        return handle.get_info()
    except LMStudioModelNotFoundError:
        return None


def identifiers(client: Client) -> dict[str | None, str]:
    """Return the identifiers of the loaded instances, by their references."""
    return {handle.model.state.reference: handle.identifier for handle in client.list_loaded_models()}


def evicted_since(client: Client, before: dict[str | None, str]) -> str:
    """Return which of the instances that were loaded before a load are gone, as a text."""
    return ", ".join(sorted(before[reference] for reference in before.keys() - identifiers(client).keys()))


def namespace_of(client: Client, info: ModelInfo) -> LlmNamespace | EmbeddingNamespace:
    """Return the client's models of the kind of a model."""
    return client.llm if info.type == "llm" else client.embedding


def downloaded_models(client: Client, kind: ModelKind | None = None) -> list[ModelInfo]:
    """Return the info of the downloaded models, of one kind or of both, by key."""
    return sorted((model.info for model in client.list_downloaded_models(kind)), key=lambda info: info.model_key)


def find_downloaded(
    client: Client, name: str | None, *, device: str | None = None, exact: bool = False, first: bool = False
) -> FoundModel:
    """Return the downloaded model that the user means; if several match, or there is no name, the one that is picked.

    Raises:
        LMStudioValueError: If no model matches, or several do and there is no terminal; or if the device is not
            connected.
    """
    downloaded = on_device(client, downloaded_models(client), device)
    if name is None:
        return FoundModel(picked := pick_model(downloaded, "model"), picked.model_key)
    matches = find_models(name, downloaded, exact=exact)
    return matches[0] if first else _the_one(name, matches)


def open_llm(client: Client, name: str | None, ttl: int | None, device: str | None = None) -> LLM:
    """Return a language model, loaded just in time if necessary; note which models that evicted.

    Args:
        client: The client.
        name: What the user typed; `None` is the loaded model that was used last, else the one that the user picks.
        ttl: Unload it after this many idle seconds, if this call loads it.
        device: The machine that it is used on; `None` leaves that to the server.

    Raises:
        LMStudioValueError: If the name does not mean one language model.
        LMStudioModelNotFoundError: If the device is not connected.
    """
    loaded = on_device(client, loaded_models(client, "llm"), device)
    current = choose(loaded, ())
    if name is None and current is not None:
        name = current.name
    if name in {info.identifier for info in loaded}:
        return client.llm.model(name, ttl=ttl, device=device, show_progress=False)
    key = _llm_key(name, on_device(client, downloaded_models(client), device))
    before = identifiers(client)
    with progress_bar(f"Loading {key}") as show:
        model = client.llm.model(key, ttl=ttl, device=device, on_load_progress=show)
    if evicted := evicted_since(client, before):
        note(f"Loading {key} evicted {evicted} (Auto-Evict).")
    return model


def _llm_key(name: str | None, downloaded: Sequence[ModelInfo]) -> str:
    if name is None:
        return pick_model([info for info in downloaded if info.type == "llm"], "language model").model_key
    return find_key(name, downloaded, "llm")


def find_key(name: str, downloaded: Sequence[ModelInfo], kind: ModelKind) -> str:
    """Return the name to load a model of one kind with.

    Raises:
        LMStudioValueError: If no such model matches, or several do and there is no terminal.
    """
    matches = find_models(name, downloaded)
    of_kind = [each for each in matches if each.info.type == kind]
    if not of_kind:
        raise LMStudioValueError(f"{matches[0].name!r} is {_OTHER_KIND[kind]}")
    return _the_one(name, of_kind).name


_OTHER_KIND = {
    "llm": "an embedding model; `lmsi ls --llm` lists those that can chat",
    "embedding": "a language model; `lmsi ls --embedding` lists embedding models",
}
"""What a model is that is not of a kind, and which command lists those that are."""


def _the_one(name: str, matches: Sequence[FoundModel]) -> FoundModel:
    """Return the only model that matches a name, or the one that the user picks."""
    if len(matches) == 1:
        return matches[0]
    if not has_terminal():
        keys = listed(each.name for each in matches)
        raise LMStudioValueError(f"{name!r} matches {len(matches)} models; name one of them: {keys}")
    return matches[_pick([each.info for each in matches])]


def pick_model(models: Sequence[ModelInfo], what: str) -> ModelInfo:
    """Let the user pick one of several downloaded models.

    Raises:
        LMStudioValueError: If there is none, or no terminal.
    """
    if not models:
        raise LMStudioValueError(f"no {what} is downloaded; `lmsi get MODEL` downloads one")
    if not has_terminal():
        raise LMStudioValueError(f"name a {what}: {listed(info.model_key for info in models)}")
    different = by_key(models)
    return different[_pick(different)]


def _pick(models: Sequence[ModelInfo]) -> int:
    sizes = (f" ({file_size(info.size_bytes)})" if info.size_bytes else "" for info in models)
    return pick("Model", [f"{info.model_key}{size}" for info, size in zip(models, sizes, strict=True)])
