"""Fixtures for tests of programs that use LM Studio.

Every pytest run loads the plugin where the package is installed, so it imports nothing else of the package until a
fixture is used.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lmstudio_integrations.emulator import Emulator

MODELS = ("qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5")
"""The default models of the emulator: a scripted model of each kind."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the address of a real LM Studio."""
    parser.getgroup("lmstudio").addoption(
        "--lmstudio-host",
        metavar="HOST:PORT",
        default=None,
        help="run the tests that use the lmstudio_host fixtures on this server instead of on the emulator",
    )


@pytest.fixture(scope="session")
def lmstudio_models() -> Sequence[Any]:
    """The models of the emulators, in the form that `Emulator` accepts; override the fixture for other models."""
    return MODELS


@pytest.fixture
def lmstudio_emulator(lmstudio_models: Sequence[Any]) -> "Iterator[Emulator]":
    """A running emulator for this test alone."""
    yield from _emulator(lmstudio_models)


@pytest.fixture(scope="session")
def lmstudio_session_emulator(lmstudio_models: Sequence[Any]) -> "Iterator[Emulator]":
    """A running emulator that all tests share, including the models that they load."""
    yield from _emulator(lmstudio_models)


@pytest.fixture
def lmstudio_host(request: pytest.FixtureRequest) -> str:
    """The address of the server for this test: `--lmstudio-host`, else an emulator for this test alone."""
    return _host(request, "lmstudio_emulator")


@pytest.fixture(scope="session")
def lmstudio_session_host(request: pytest.FixtureRequest) -> str:
    """The address of the server for all tests: `--lmstudio-host`, else an emulator that they share."""
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
