"""Fixtures for tests of code that talks to LM Studio.

The plugin is loaded in every pytest run of everybody who has the package installed, so it imports nothing of it
until a fixture is used.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lmstudio_integrations.emulator import Emulator

MODELS = ("qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5")
"""What the emulator has unless `lmstudio_models` says otherwise: a scripted model of each kind."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a real LM Studio."""
    parser.getgroup("lmstudio").addoption(
        "--lmstudio-host",
        metavar="HOST:PORT",
        default=None,
        help="run the tests that use the lmstudio_host fixtures on this server instead of on the emulator",
    )


@pytest.fixture(scope="session")
def lmstudio_models() -> Sequence[Any]:
    """The models of the emulators, as `Emulator` takes them; override it to have others."""
    return MODELS


@pytest.fixture
def lmstudio_emulator(lmstudio_models: Sequence[Any]) -> "Iterator[Emulator]":
    """A running emulator of this test's own."""
    yield from _emulator(lmstudio_models)


@pytest.fixture(scope="session")
def lmstudio_session_emulator(lmstudio_models: Sequence[Any]) -> "Iterator[Emulator]":
    """A running emulator that all tests share; what one test loads is there for the next."""
    yield from _emulator(lmstudio_models)


@pytest.fixture
def lmstudio_host(request: pytest.FixtureRequest) -> str:
    """The address of the server to test with: that of `--lmstudio-host`, else of this test's own emulator."""
    return _host(request, "lmstudio_emulator")


@pytest.fixture(scope="session")
def lmstudio_session_host(request: pytest.FixtureRequest) -> str:
    """The address of the server to test with: that of `--lmstudio-host`, else of the emulator that all tests share."""
    return _host(request, "lmstudio_session_emulator")


def _emulator(models: Sequence[Any]) -> "Iterator[Emulator]":
    from lmstudio_integrations.emulator import Emulator  # noqa: PLC0415 - see the docstring of the module

    with Emulator(models) as server:
        yield server


def _host(request: pytest.FixtureRequest, fixture: str) -> str:
    given: str | None = request.config.getoption("--lmstudio-host")
    if given is not None:
        return given
    server: Emulator = request.getfixturevalue(fixture)
    return server.address
