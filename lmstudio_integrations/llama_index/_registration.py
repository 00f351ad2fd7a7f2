"""`register`: lets LlamaIndex load what `to_dict` wrote; enters our classes in its two tables of recognized models.

Core imports the modules with these tables when it first loads a model. They also import the packages of OpenAI, if
those are installed, which takes more than a second. So importing this package only enters a class once core imports
its table; `register` imports both.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_PACKAGE = __name__.rpartition(".")[0]

_TABLES = {
    "llama_index.core.llms.loading": ("RECOGNIZED_LLMS", "LMStudio"),
    "llama_index.core.embeddings.loading": ("RECOGNIZED_EMBEDDINGS", "LMStudioEmbedding"),
}
"""The table in each of core's modules, and the class that it gets."""


class _Finder(MetaPathFinder):
    """Finds the modules with the tables, as Python does, and enters a class once one is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _TABLES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_enter(module: ModuleType) -> None:
            execute(module)
            _enter(module)

        spec.loader.exec_module = execute_and_enter  # type: ignore[method-assign]  # the loader serves one module
        return spec


def _enter(module: ModuleType) -> None:
    table, name = _TABLES[module.__name__]
    model = getattr(import_module(_PACKAGE), name)
    getattr(module, table)[model.class_name()] = model


def enter_once_imported() -> None:
    """Enter the classes in the tables that are imported, and in the others once they are."""
    sys.meta_path.insert(0, _Finder())
    for name in _TABLES:
        if name in sys.modules:
            _enter(sys.modules[name])


def register() -> None:
    """Let LlamaIndex's `load_llm` and `load_embed_model` make `LMStudio` and `LMStudioEmbedding`, in this process.

    They take what `to_dict` wrote, or a dict such as `{"class_name": "LMStudio", "model": "qwen3-4b"}`. Importing
    `lmstudio_integrations.llama_index` has the same effect, so this is only for programs that import it for nothing
    else. It may be called again.

    Raises:
        ModuleNotFoundError: If `llama-index-core` is not installed.
    """
    for module, (_, name) in _TABLES.items():
        getattr(import_module(_PACKAGE), name)  # says what to install
        _enter(import_module(module))
