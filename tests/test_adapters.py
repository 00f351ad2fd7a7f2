"""The list of adapters that the tests share."""

from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations._adapters.connection_settings import ConnectionSettings
from tests.adapters import ADAPTERS, EMBEDDING_MODELS, LANGUAGE_MODELS, classes


def test_the_list_has_every_public_adapter() -> None:
    public = {name: getattr(module, name) for module in (langchain, llama_index) for name in module.__all__}
    adapters = {name: kind for name, kind in public.items() if issubclass(kind, ConnectionSettings)}
    assert {name: adapter.make for name, adapter in ADAPTERS.items()} == adapters


def test_every_adapter_is_a_language_model_or_an_embedding_model() -> None:
    assert LANGUAGE_MODELS | EMBEDDING_MODELS == ADAPTERS
    assert len(classes("LangChain")) + len(classes("LlamaIndex")) == len(classes())
