"""`register`: lets LlamaIndex load what `to_dict` wrote; enters our classes in its two tables of recognized models.

The modules with these tables also import the packages of OpenAI, if those are installed, which takes more than a
second. So they are imported only when a program calls `register`.
"""

from importlib import import_module

_PACKAGE = __name__.rpartition(".")[0]

_TABLES = {
    "LMStudio": ("llama_index.core.llms.loading", "RECOGNIZED_LLMS"),
    "LMStudioEmbedding": ("llama_index.core.embeddings.loading", "RECOGNIZED_EMBEDDINGS"),
}
"""Each class that core can load, and the table that it is entered in: the module and its name."""


def register() -> None:
    """Let LlamaIndex's `load_llm` and `load_embed_model` make `LMStudio` and `LMStudioEmbedding`, in this process.

    They take what `to_dict` wrote, or a dict such as `{"class_name": "LMStudio", "model": "qwen3-4b"}`. So do the
    extractors and pipelines of LlamaIndex, whose dumps contain a model. It may be called again.

    Raises:
        ModuleNotFoundError: If `llama-index-core` is not installed.
    """
    for name, (module, table) in _TABLES.items():
        model = getattr(import_module(_PACKAGE), name)  # says what to install
        getattr(import_module(module), table)[model.class_name()] = model
