"""The tables that run every adapter: a new adapter fails here until it has its rows."""

import inspect
from importlib import import_module

import pytest

from lmstudio_integrations._adapters.settings import ModelSettings
from tests._adapters import test_metadata
from tests.support.adapters import ADAPTERS, CLASSIFIERS, EMBEDDING_MODELS, LANGUAGE_MODELS, RERANKERS, classes
from tests.test_package import PUBLIC


@pytest.mark.leaf
def test_the_list_has_every_public_adapter() -> None:
    public = [getattr(import_module(module), name) for module, names in PUBLIC.items() for name in names.split()]
    adapters = {each for each in public if inspect.isclass(each) and issubclass(each, ModelSettings)}
    assert {adapter.make for adapter in ADAPTERS.values()} == adapters


def test_every_adapter_is_of_one_kind() -> None:
    assert LANGUAGE_MODELS | EMBEDDING_MODELS | RERANKERS | CLASSIFIERS == ADAPTERS
    assert len(classes("LangChain")) + len(classes("LlamaIndex")) == len(classes())


def test_the_metadata_of_every_language_model_is_tested() -> None:
    assert {make for make, _ in test_metadata.ADAPTERS.values()} == {each.make for each in LANGUAGE_MODELS.values()}
