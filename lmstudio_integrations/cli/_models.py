"""The models of a server for the commands: what is downloaded, what is loaded, and which one to use."""

from collections.abc import Iterable
from dataclasses import dataclass

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.errors import LMStudioModelNotFoundError
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.models import LlmInfo, ModelInfo, ModelInstanceInfo

SIZE_LIMIT = 2_000_000_000
"""Bytes on disk; a larger model is never loaded without being requested."""


def downloaded_models(client: Client, kind: ModelKind | None = None) -> list[ModelInfo]:
    """Return the downloaded models, of one kind or of both, by key."""
    return sorted((model.info for model in client.list_downloaded_models(kind)), key=lambda info: info.model_key)


def loaded_models(client: Client, kind: ModelKind | None = None) -> list[ModelInstanceInfo]:
    """Return the loaded instances, of one kind or of both, by identifier."""
    infos: list[ModelInstanceInfo] = []
    for handle in client.list_loaded_models(kind):
        try:
            infos.append(handle.get_info())
        except LMStudioModelNotFoundError:  # it was unloaded since
            continue
    return sorted(infos, key=lambda info: info.identifier)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model to use: `name` is its identifier if it is loaded, else its key."""

    name: str
    loaded: bool


def choose(loaded: Iterable[ModelInstanceInfo], downloaded: Iterable[ModelInfo]) -> Choice | None:
    """Return a loaded model, else the smallest downloaded one below `SIZE_LIMIT`, else `None`.

    Of several loaded models, the last used one is chosen. All must be of the same kind.
    """
    instances = _last_used_first(loaded)
    if instances:
        return Choice(instances[0].identifier, loaded=True)
    small = [info for info in downloaded if info.size_bytes < SIZE_LIMIT]
    if small:
        return Choice(min(small, key=lambda info: info.size_bytes).model_key, loaded=False)
    return None


def choose_for_trial(loaded: Iterable[ModelInstanceInfo], downloaded: Iterable[ModelInfo]) -> ModelInfo | None:
    """Return the model to try: one that was trained for tool use before another, a loaded one before a smaller one.

    Args:
        loaded: The loaded models; the last used one comes first.
        downloaded: The models that may be loaded; the smallest comes first.
    """
    models: list[ModelInfo] = [*_last_used_first(loaded), *sorted(downloaded, key=lambda info: info.size_bytes)]
    return min(models, key=lambda info: isinstance(info, LlmInfo) and not info.trained_for_tool_use, default=None)


def _last_used_first(loaded: Iterable[ModelInstanceInfo]) -> list[ModelInstanceInfo]:
    return sorted(loaded, key=lambda info: info.last_used_time or 0, reverse=True)
