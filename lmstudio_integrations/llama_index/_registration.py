"""`register`: lets LlamaIndex load our models from what `to_dict` wrote."""

from importlib import import_module

from lmstudio_integrations import llama_index

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
    for name, (module, table) in _TABLES.items():  # imported only now: they import OpenAI's packages, if there are any
        model = getattr(llama_index, name)  # says what to install
        getattr(import_module(module), table)[model.class_name()] = model
