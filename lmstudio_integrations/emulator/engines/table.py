"""The engines for models with weights: each is loaded on first use, and its folder can be deleted."""

from importlib import import_module
from typing import Literal

from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.emulator.engines.base import WeightsEngine

EngineName = Literal["scripted", "llama_cpp"]
"""The names of all engines, as their classes have them."""

WEIGHTS_ENGINE: EngineName = "llama_cpp"
"""The engine of models with weights, where none is named."""

_CLASSES: dict[str, str] = {"llama_cpp": "lmstudio_integrations.emulator.engines.llama_cpp:LlamaCppEngine"}


def weights_engine(
    name: str = WEIGHTS_ENGINE, *, offline: bool = False, worker_memory: int | None = None
) -> WeightsEngine:
    """Return an engine for models with weights.

    Args:
        name: Its name.
        offline: Whether it never fetches weights.
        worker_memory: The memory limit of one model's process, in bytes.

    Raises:
        ImportError: The engine is not in this installation.
        LMStudioValueError: If the memory is not valid.
    """
    module, _, engine = _CLASSES[name].partition(":")
    with door(f"the engine {name!r}, which models with weights need"):
        new = getattr(import_module(module), engine)
    found: WeightsEngine = new(offline=offline, worker_memory=worker_memory)
    return found
