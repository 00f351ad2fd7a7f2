"""The tables of tests that run every adapter: a new adapter fails here until it has its rows."""

import inspect
from importlib import import_module

from lmstudio_integrations._adapters.generation_settings import GenerationSettings
from lmstudio_integrations._adapters.settings import ConnectionSettings
from tests import test_metadata, test_prediction_settings, test_proxies, test_secrets
from tests.test_package import LAYERS, NAME


def adapters(base: type) -> set[type]:
    """Return the public classes of all frameworks with a base class."""
    modules = [import_module(f"{NAME}.{part}") for part, below in LAYERS.items() if "_adapters" in below]
    public = {getattr(module, name) for module in modules for name in module.__all__}
    return {each for each in public if inspect.isclass(each) and issubclass(each, base)}


def test_every_adapter_is_in_the_tables() -> None:
    expected = adapters(ConnectionSettings)
    assert len(expected) >= 5
    assert set(test_secrets.ADAPTERS) == expected
    assert set(test_proxies.ADAPTERS) == {make for make, _, _ in test_proxies.CALLS.values()} == expected


def test_every_adapter_that_generates_is_in_the_tables() -> None:
    expected = adapters(GenerationSettings)
    assert len(expected) >= 3
    assert {make for make, _ in test_metadata.ADAPTERS.values()} == expected
    assert {make for make, _ in test_prediction_settings.ADAPTERS} == expected
