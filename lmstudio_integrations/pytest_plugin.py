"""Fixtures for tests of programs that use LM Studio.

Every pytest run loads the plugin where the package is installed, so it imports nothing else of the package until a
fixture is used.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from lmstudio_integrations.emulator import Emulator, Recording
    from lmstudio_integrations.emulator.cassettes.use import Mode

MODELS = ("qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5")
"""The default models of the emulator: a scripted model of each kind."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("lmstudio")
    group.addoption(
        "--lmstudio-host",
        metavar="HOST:PORT",
        default=None,
        help="run the tests that use the lmstudio_host fixtures on this server instead of on the emulator",
    )
    group.addoption(
        "--lmstudio-record",
        choices=("none", "once", "new_episodes", "all", "rewrite"),
        default="none",
        help="when the tests that use lmstudio_cassette record an LM Studio: never, if there is no cassette yet, what "
        "the cassette does not have, everything, or everything from nothing (default: none)",
    )
    parser.addini("lmstudio_redact", "regular expressions; what they match is hidden from cassettes", type="linelist")


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


@pytest.fixture
def lmstudio_cassette(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[Emulator | Recording]":
    """A server that replays the cassette of this test, or records it; see `--lmstudio-record`.

    Programs that name no host use it as well. The cassette is `cassettes/MODULE/TEST.lms.jsonl` beside the module. A
    test whose requests are not in it fails.
    """
    from lmstudio_integrations.emulator import Emulator, use_cassette  # noqa: PLC0415 - see the docstring of the module
    from lmstudio_integrations.emulator.cassettes.use import records  # noqa: PLC0415

    mode = cast("Mode", request.config.getoption("--lmstudio-record"))
    path = _cassette_path(request)
    redact = request.config.getini("lmstudio_redact")
    with use_cassette(
        path, mode, server=_recorded_host(request) if records(path, mode) else None, redact=redact
    ) as server:
        monkeypatch.setenv("LMSTUDIO_HOST", server.address)
        yield server
        unmatched = server.unmatched if isinstance(server, Emulator) else ()
    if unmatched:
        pytest.fail("the cassette does not have all requests:\n" + "\n".join(unmatched), pytrace=False)


def _cassette_path(request: pytest.FixtureRequest) -> Path:
    test = re.sub(r"[^\w.=-]+", "-", request.node.nodeid.partition("::")[2]).strip("-")
    return request.path.parent / "cassettes" / request.path.stem / f"{test}.lms.jsonl"


def _recorded_host(request: pytest.FixtureRequest) -> str:
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - see the docstring of the module

    given: str | None = request.config.getoption("--lmstudio-host") or os.environ.get("LMSTUDIO_HOST")
    found = given or Client.find_default_local_api_host()
    if found is None:
        pytest.fail("no LM Studio to record: start it, or name it with --lmstudio-host", pytrace=False)
    return found


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
