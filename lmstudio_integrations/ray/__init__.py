"""LM Studio in Ray Data: embed, generate or rerank a column of a dataset, on one host or on many.

Needs the `ray` extra. `stages` adds a stage to a dataset, `actors` has what its actors run. Beside the adapters, on the
client alone. The names are imported when they are first asked for.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._support.installation import install_command

if TYPE_CHECKING:
    from lmstudio_integrations.ray.actors import Embedder as Embedder
    from lmstudio_integrations.ray.actors import Generator as Generator
    from lmstudio_integrations.ray.actors import Reranker as Reranker
    from lmstudio_integrations.ray.stages import embed as embed
    from lmstudio_integrations.ray.stages import generate as generate
    from lmstudio_integrations.ray.stages import rerank as rerank

__all__ = ["Embedder", "Generator", "Reranker", "embed", "generate", "rerank"]

_MODULES = {
    "Embedder": "actors",
    "Generator": "actors",
    "Reranker": "actors",
    "embed": "stages",
    "generate": "stages",
    "rerank": "stages",
}

_NEEDED = {"ray": "ray[data]", "pyarrow": "pyarrow", "anyio": "anyio"}
"""What must be installed: the packages, and what provides them."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    for package, distribution in _NEEDED.items():
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"{name} needs {distribution}; run: {install_command('ray')}", name=package)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
