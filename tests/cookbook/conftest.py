"""Servers for what the documentation shows: one with scripted models under the bundled keys, one with real ones."""

from collections.abc import Iterator

import pytest

from lmstudio_integrations.client._address import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalogue import BUNDLED, parse_model


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the developer's machine says of servers and models."""
    for name in (*TOKEN_VARIABLES, "LMSTUDIO_MODEL", "LMSTUDIO_EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server that has scripted models under the keys of the bundled ones."""
    with Emulator([parse_model(key, scripted=True) for key in BUNDLED]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server that has the bundled models."""
    with Emulator() as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server
