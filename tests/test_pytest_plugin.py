"""The fixtures for users' own tests, each in a pytest run of its own."""

import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

Run: TypeAlias = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run a test file in a fresh process, with the plugin as it is installed."""

    def _run(source: str, *settings: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:langsmith_plugin",
            *settings,
        ]
        if "lmstudio_integrations" not in installed_plugins():
            command += ["-p", "lmstudio_integrations.pytest_plugin"]
        return pytester.run(*command, *settings, timeout=60)

    return _run


def installed_plugins() -> set[str]:
    """Return the names of the plugins that pytest finds by itself."""
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="pytest11")}


def test_each_test_gets_an_emulator_of_its_own(run: Run) -> None:
    result = run(
        """
        seen = []

        def test_one(lmstudio_emulator):
            lmstudio_emulator.load("qwen2.5-7b-instruct")
            seen.append(lmstudio_emulator.address)

        def test_two(lmstudio_emulator):
            assert lmstudio_emulator.loaded() == []
            assert lmstudio_emulator.address not in seen
        """
    )
    result.assert_outcomes(passed=2)


def test_the_session_emulator_is_shared(run: Run) -> None:
    result = run(
        """
        def test_one(lmstudio_session_emulator):
            lmstudio_session_emulator.load("qwen2.5-7b-instruct")

        def test_two(lmstudio_session_emulator, lmstudio_session_host):
            assert len(lmstudio_session_emulator.loaded()) == 1
            assert lmstudio_session_host == lmstudio_session_emulator.address
        """
    )
    result.assert_outcomes(passed=2)


def test_the_models_can_be_overridden(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture(scope="session")
        def lmstudio_models():
            return ["my-model"]

        def test_it(lmstudio_emulator):
            assert lmstudio_emulator.load("my-model").identifier == "my-model"
        """
    )
    result.assert_outcomes(passed=1)


def test_lmstudio_host_replaces_the_emulator(run: Run, emulator: Emulator) -> None:
    result = run(
        f"""
        import threading

        def test_it(lmstudio_host, lmstudio_session_host):
            assert lmstudio_host == lmstudio_session_host == {emulator.address!r}
            assert all(thread.name != "lmstudio-emulator" for thread in threading.enumerate())
        """,
        "--lmstudio-host",
        emulator.address,
    )
    result.assert_outcomes(passed=1)


def test_the_plugin_alone_imports_nothing_of_the_package(run: Run) -> None:
    result = run(
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("lmstudio_integrations.")}
            assert loaded == {"lmstudio_integrations.pytest_plugin"}
        """
    )
    result.assert_outcomes(passed=1)


CASSETTE_TEST = """
import contextlib
import lmstudio_integrations as lms
import pytest

@pytest.mark.parametrize("word", ["a b/c"])
def test_it_responds(lmstudio_cassette, word):
    with lms.Client() as client, contextlib.suppress(lms.LMStudioServerError):
        assert word in client.llm.model("qwen2.5-7b-instruct").respond(word + EXTRA).content
"""


def test_a_test_is_recorded_once_and_replayed_without_a_server(run: Run, pytester: pytest.Pytester) -> None:
    source = CASSETTE_TEST.replace("EXTRA", '""')
    with Emulator(["qwen2.5-7b-instruct"]) as server:
        run(source, "--lmstudio-record=once", f"--lmstudio-host={server.address}").assert_outcomes(passed=1)
        assert len(server.predictions) == 1
    module = next(pytester.path.glob("test_*.py")).stem
    (cassette,) = pytester.path.glob("cassettes/**/*.jsonl")
    assert cassette == pytester.path / "cassettes" / module / "test_it_responds-a-b-c.lms.jsonl"
    run(source, "--lmstudio-record=once").assert_outcomes(passed=1)
    # A program that handles the error passes, and its test must fail.
    result = run(CASSETTE_TEST.replace("EXTRA", '"!"'))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the cassette does not have all requests:", '*recorded "a b/c", sent "a b/c!"*'])


def test_a_recording_needs_an_lm_studio(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    result = run(
        """
        import lmstudio_integrations as lms

        lms.Client.find_default_local_api_host = classmethod(lambda cls: None)
        """
        + CASSETTE_TEST.replace("EXTRA", '""').replace("\n", "\n        "),
        "--lmstudio-record=rewrite",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no LM Studio to record: start it, or name it with --lmstudio-host*"])
