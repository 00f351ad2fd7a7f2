"""What a model of each kind is on one server: a table of names, so that a program loads the kinds that it uses."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.types.config import ModelKind

_CLASSES: Mapping[ModelKind, tuple[str, str]] = {
    "llm": ("lmstudio_integrations.client.predictions.language_model", "LanguageModel"),
    "embedding": ("lmstudio_integrations.client.embeddings", "Embedder"),
    "decision": ("lmstudio_integrations.client.predictions.decisions.decider", "Decider"),
}


@cache
def model_class(kind: ModelKind) -> type[Model]:
    """Return the class of the models of a kind."""
    module, name = _CLASSES[kind]
    with door(f"models of the kind {kind!r}"):
        found: type[Model] = getattr(import_module(module), name)
    return found
