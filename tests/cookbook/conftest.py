"""Servers with the cookbook's models, for the examples in the documentation: all scripted, or real where possible."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations._environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalog import BUNDLED, load, parse_model

COOKBOOK = Path(__file__).parents[2] / "cookbook"
CATALOG = load(COOKBOOK / "catalog.toml")
VARIABLES = re.findall(r"`(LMSTUDIO_\w*MODEL)`", (COOKBOOK / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def plain_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the environment variables of servers and models, except in live tests."""
    if request.node.get_closest_marker("live"):
        return
    for name in (*TOKEN_VARIABLES, *VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the cookbook's models; the bundled models are replaced by scripted ones."""
    models = [parse_model(model.key, scripted=True) if model.key in BUNDLED else model for model in CATALOG.models]
    with Emulator(models) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the cookbook's models."""
    with Emulator(catalog=CATALOG) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server
