"""Servers for what the documentation shows: the cookbook's models, all of them scripted or as real as they can be."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations._environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalog import BUNDLED, load, parse_model

COOKBOOK = Path(__file__).parents[2] / "cookbook"
CATALOGUE = load(COOKBOOK / "catalog.toml")
VARIABLES = re.findall(r"`(LMSTUDIO_\w*MODEL)`", (COOKBOOK / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def plain_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the developer's machine says of servers and models, unless these are what is tested."""
    if request.node.get_closest_marker("live"):
        return
    for name in (*TOKEN_VARIABLES, *VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server that has the cookbook's models, with scripted ones under the keys of the bundled ones."""
    models = [parse_model(model.key, scripted=True) if model.key in BUNDLED else model for model in CATALOGUE.models]
    with Emulator(models) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server that has the cookbook's models."""
    with Emulator(catalog=CATALOGUE) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server
