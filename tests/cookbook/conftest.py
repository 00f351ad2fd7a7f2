"""Servers with the cookbook's models, for the recipes and for the examples in the documentation."""

from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalog import BUNDLED, parse_model
from tests.cookbook.recipe_runs import Servers
from tests.cookbook.recipes import CATALOG


@pytest.fixture(autouse=True)
def plain_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the environment variables of tokens, except in live tests."""
    if request.node.get_closest_marker("live"):
        return
    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the cookbook's models; the bundled models are replaced by scripted ones."""
    models = [parse_model(model.key, scripted=True) if model.key in BUNDLED else model for model in CATALOG.models]
    with Emulator(models) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture(scope="session")
def font_cache() -> None:
    """Let matplotlib find the fonts of this machine, of which it writes a note to stderr the first time."""
    if find_spec("matplotlib"):
        import_module("matplotlib.font_manager")


@pytest.fixture(scope="module")
def servers(font_cache: None) -> Iterator[Servers]:
    """Servers that the recipes of a module share."""
    with ExitStack() as stack:
        yield Servers(stack)
