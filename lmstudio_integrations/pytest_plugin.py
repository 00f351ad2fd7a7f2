"""Fixtures for tests of programs that use LM Studio.

Every pytest run loads the plugin where the package is installed, so it imports nothing else of the package until a
fixture is used.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from lmstudio_integrations.cassettes import Recording, Replay
    from lmstudio_integrations.cassettes.cassette import BeforeRecord
    from lmstudio_integrations.cassettes.modes import Mode
    from lmstudio_integrations.emulator import Emulator

MODELS = ("qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5")
"""The default models of the emulator: a scripted model of each kind."""


_passed = pytest.StashKey[bool]()
"""Whether the test has passed, which its fixtures do not see otherwise."""

_recordings = pytest.StashKey[ExitStack]()
"""The recording of a test, which is saved at the end."""

_recorded = pytest.StashKey[str]()
"""What the recording of a test says about itself, once it is saved."""


class _NotPassedError(Exception):
    """Raised in the block of a cassette that is not saved."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options: a real LM Studio or none, and what is recorded."""
    group = parser.getgroup("lmstudio")
    group.addoption(
        "--lmstudio-host",
        metavar="HOST:PORT",
        default=None,
        help="run the tests that use the lmstudio_host fixtures on this server instead of on the emulator",
    )
    group.addoption(
        "--lmstudio-record",
        choices=("none", "once", "rewrite"),
        default="none",
        help="when the tests that use lmstudio_cassette record an LM Studio: never, if there is no cassette yet, or "
        "always (default: none)",
    )
    group.addoption(
        "--lmstudio-block",
        action="store_true",
        help="reject the connections of this package's clients to all servers that the test run has not started itself",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Block connections if told so."""
    if config.getoption("--lmstudio-block"):
        if config.getoption("--lmstudio-host"):
            raise pytest.UsageError("--lmstudio-block rejects connections to --lmstudio-host; give one of the two")
        from lmstudio_integrations._support import environment  # noqa: PLC0415 - what runs before tests is imported late

        environment.block()
        config.add_cleanup(environment.unblock)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether a test has passed, about which other plugins decide as well."""
    report = yield
    if report.when == "setup":
        item.stash[_passed] = report.passed
    elif report.when == "call":  # there is one for each subtest as well
        item.stash[_passed] &= report.passed
    else:
        vars(report)["lmstudio_recorded"] = item.stash.get(_recorded, "")  # plugins as pytest-xdist send it along
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Save what a test has recorded if it has passed, and its fixtures are torn down without an error."""
    with ExitStack() as recordings:
        item.stash[_recordings] = recordings
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of each recorded cassette how many values were removed, and where texts of users and models remain."""
    reports = [each for reports in terminalreporter.stats.values() for each in reports]
    recorded = [text for each in reports if (text := getattr(each, "lmstudio_recorded", ""))]
    if recorded:
        from lmstudio_integrations._support.text import printable  # noqa: PLC0415 - see the docstring of the module

        terminalreporter.section("recorded cassettes")
        terminalreporter.write_line(printable("\n".join(recorded)))


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


@pytest.fixture(scope="session")
def lmstudio_before_record() -> "BeforeRecord | None":
    """What sees each request before `lmstudio_cassette` writes it, see `use_cassette`; override the fixture."""
    return None


@pytest.fixture
def lmstudio_cassette(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    lmstudio_before_record: "BeforeRecord | None",
) -> "Iterator[Recording | Replay]":
    """A server that replays the cassette of this test, or LM Studio that is recorded; see `--lmstudio-record`.

    Programs that name no host use it. The cassette is `cassettes/MODULE/TEST.lms.jsonl` beside the module. A test whose
    requests are not in it fails.
    """
    from lmstudio_integrations._support.environment import TOKEN_VARIABLES  # noqa: PLC0415 - see the module
    from lmstudio_integrations._support.leaves import door  # noqa: PLC0415
    from lmstudio_integrations.client.api.official import own_default_client  # noqa: PLC0415
    from lmstudio_integrations.client.transport.connect.addresses import Target  # noqa: PLC0415

    with door("cassettes"):
        from lmstudio_integrations.cassettes.modes import cassette_name, needs_server, use_cassette  # noqa: PLC0415

    node: pytest.Item = request.node
    mode = cast("Mode", request.config.getoption("--lmstudio-record"))
    # Not the node id, to which plugins such as pytest-xdist add.
    test = [each.name for each in node.listchain() if isinstance(each, (pytest.Class, pytest.Item))]
    path = node.path.parent / "cassettes" / node.path.stem / cassette_name(test)
    is_recorded = needs_server(path, mode)
    if not is_recorded and not path.exists():
        pytest.fail(f"there is no cassette {str(path)!r}; record it with --lmstudio-record=once", pytrace=False)
    host = _recorded_host(request) if is_recorded else None
    unmatched: Sequence[str] = ()
    with _short_errors(), suppress(_NotPassedError), ExitStack() as stack:
        server = stack.enter_context(use_cassette(path, mode, server=host, before_record=lmstudio_before_record))
        if host is not None and Target.of(host, None).token is None:  # that of the environment is for another server
            for name in TOKEN_VARIABLES:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LMSTUDIO_HOST", server.address)
        with own_default_client():
            yield server
        if not is_recorded:
            unmatched = cast("Replay", server).unmatched
        if is_recorded and not node.stash[_passed]:
            kept = ", and the earlier one is kept" if path.exists() else ""
            node.add_report_section("teardown", "lmstudio", f"{path.name} is not saved{kept}: the test did not pass")
            raise _NotPassedError
        if is_recorded:
            recording = stack.pop_all()

            def save(*error: Any) -> bool:
                with _short_errors():  # of the recording; one of a fixture stays as it is
                    recording.__exit__(*error)
                if error[0] is None:
                    node.stash[_recorded] = f"{path}: {cast('Recording', server).report}"
                return False

            node.stash[_recordings].push(save)
    if unmatched:
        missing = "\n".join(unmatched)
        pytest.fail(
            f"the cassette does not have all requests; record it again with --lmstudio-record=rewrite:\n{missing}",
            pytrace=False,
        )


@contextmanager
def _short_errors() -> Generator[None]:
    """Fail with what an error of this package says, without the lines that raised it, which are no part of the test."""
    from lmstudio_integrations.errors import LMStudioError  # noqa: PLC0415 - see the docstring of the module

    try:
        yield
    except LMStudioError as error:
        pytest.fail("\n".join([str(error), *getattr(error, "__notes__", ())]), pytrace=False)


def _recorded_host(request: pytest.FixtureRequest) -> str:
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415 - see the docstring of the module

    with Client(request.config.getoption("--lmstudio-host")) as client:
        host = client.api_host or Client.find_default_local_api_host()
    if host is None:
        pytest.fail("no LM Studio to record: start it, or name it with --lmstudio-host", pytrace=False)
    return host


def _emulator(models: Sequence[Any]) -> "Iterator[Emulator]":
    from lmstudio_integrations.emulator import Emulator  # noqa: PLC0415 - see the docstring of the module

    with Emulator(models) as server:
        yield server


def _host(request: pytest.FixtureRequest, fixture: str) -> str:
    host: str | None = request.config.getoption("--lmstudio-host")
    if host is not None:
        return host
    server: Emulator = request.getfixturevalue(fixture)
    return server.address
