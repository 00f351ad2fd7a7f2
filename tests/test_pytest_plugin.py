"""The fixtures for users' own tests, each in a pytest run of its own."""

import sys
from collections.abc import Callable
from typing import TypeAlias

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes.cassette import save
from lmstudio_integrations.client.transport.connect import addresses, discovery
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from tests.docs.snippets import ROOT

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
Run: TypeAlias = Callable[..., pytest.RunResult]

IMPORTED = ChatLMStudio, lms.llm
"""What the runs use. `pytester` takes out of `sys.modules` what is imported while it runs, so it is imported before."""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in this process, or another function of `pytester`, with this plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def _run(source: str, *settings: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest(
            "-q", "-p", "no:cacheprovider", "-p", "lmstudio_integrations.pytest_plugin", *settings
        )

    return _run


def test_each_test_gets_an_emulator_of_its_own_beside_that_of_the_session(run: Run) -> None:
    result = run(
        """
        import pytest
        seen = []

        @pytest.fixture(scope="session")
        def lmstudio_models():
            return ["my-model"]

        def test_one(lmstudio_emulator, lmstudio_session_emulator):
            assert lmstudio_session_emulator.load("my-model").identifier == "my-model"
            lmstudio_emulator.load("my-model")
            seen.append(lmstudio_emulator.address)

        def test_two(lmstudio_emulator, lmstudio_session_emulator, lmstudio_session_host):
            assert lmstudio_emulator.loaded() == []
            assert lmstudio_emulator.address not in seen
            assert len(lmstudio_session_emulator.loaded()) == 1
            assert lmstudio_session_host == lmstudio_session_emulator.address
        """
    )
    result.assert_outcomes(passed=2)


def test_lmstudio_host_replaces_the_emulator(run: Run, emulator: Emulator) -> None:
    result = run(
        f"""
        import threading

        def test_it(lmstudio_host, lmstudio_session_host):
            assert lmstudio_host == lmstudio_session_host == {emulator.address!r}
            assert [thread.name for thread in threading.enumerate()].count("lmstudio-emulator") == 1
        """,
        "--lmstudio-host",
        emulator.address,
    )
    result.assert_outcomes(passed=1)


def test_the_plugin_alone_imports_nothing_of_the_package(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("lmstudio_integrations.")}
            assert loaded == {"lmstudio_integrations.pytest_plugin"}
        """
    )
    result = pytester.runpytest_subprocess("-p", "lmstudio_integrations.pytest_plugin", timeout=600)
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
    source = CASSETTE_TEST.replace("EXTRA", '""').replace('"a b/c"', '"a b/c", "a-b-c"')
    with Emulator(["qwen2.5-7b-instruct"]) as server:
        run(source, "--lmstudio-record=once", f"--lmstudio-host={server.address}").assert_outcomes(passed=2)
        assert len(server.predictions) == 2
    module = next(pytester.path.glob("test_*.py")).stem
    cassettes = {path.relative_to(pytester.path).as_posix() for path in pytester.path.glob("cassettes/**/*.jsonl")}
    name = f"cassettes/{module}/test_it_responds-a-b-c"
    assert cassettes == {f"{name}.lms.jsonl", f"{name}~14c2b381.lms.jsonl"}
    run(source, "--lmstudio-record=once").assert_outcomes(passed=2)
    # A program that handles the error passes, and its test must fail.
    result = run(CASSETTE_TEST.replace("EXTRA", '"!"'))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the cassette does not have all requests:", '*recorded "a b/c", sent "a b/c!"*'])


def test_a_recorded_server_gets_the_token_of_the_environment_only_if_that_is_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    source = """
    import lmstudio_integrations as lms

    def test_it_lists(lmstudio_cassette):
        assert lms.list_downloaded_models()
    """
    with Emulator(["qwen2.5-7b-instruct"], tokens=[TOKEN]) as server:
        arguments = "--lmstudio-record=rewrite", f"--lmstudio-host={server.address}"
        monkeypatch.setenv("LMSTUDIO_HOST", "127.0.0.1:9")
        result = run(source, *arguments)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*no API token was sent*"])
        monkeypatch.setenv("LMSTUDIO_HOST", server.address)
        run(source, *arguments).assert_outcomes(passed=1)


ENDS_TEST = """
import unittest

import lmstudio_integrations as lms
import pytest

@pytest.fixture
def breaks_before():
    raise ValueError

@pytest.fixture
def breaks_after():
    yield
    raise ValueError

@pytest.fixture
def breaks_later(lmstudio_cassette):
    yield
    raise ValueError

def say(text):
    return lms.llm("qwen2.5-7b-instruct").respond(text).content

def test_passes(lmstudio_cassette):
    assert "Hi" in say("Hi")

def test_fails(lmstudio_cassette):
    say("Hi")
    assert 0

@pytest.mark.xfail
def test_fails_as_expected(lmstudio_cassette):
    say("Hi")
    assert 0

def test_skips(lmstudio_cassette):
    say("Hi")
    pytest.skip()

def test_set_up_before(breaks_before, lmstudio_cassette):
    pass

def test_torn_down_before(breaks_after, lmstudio_cassette):
    say("Hi")

def test_torn_down_after(breaks_later):
    say("Hi")

@pytest.mark.xfail(strict=True)
def test_passes_unexpectedly(lmstudio_cassette):
    say("Hi")

def test_has_parts(lmstudio_cassette, subtests):
    with subtests.test():
        say("Hi")
        assert 0

@pytest.mark.usefixtures("lmstudio_cassette")
class TestCase(unittest.TestCase):
    def test_fails(self):
        say("Hi")
        self.fail()

def test_passes_afterwards(lmstudio_cassette):
    assert "Ho" in say("Ho")
"""
"""Tests that use the default client, and end in all ways."""


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_what_a_test_that_does_not_pass_has_recorded_is_not_saved(
    run: Run, pytester: pytest.Pytester, mode: str
) -> None:
    pytester.makepyfile(ENDS_TEST)
    (module,) = pytester.path.glob("test_*.py")
    folder = pytester.path / "cassettes" / module.stem
    saved = {f"{name}.lms.jsonl" for name in ("test_passes", "test_passes_afterwards")}
    before = {f"{name}.lms.jsonl": b"" for name in ([] if mode == "once" else ["test_fails", "test_skips"])}
    folder.mkdir(parents=True)
    for name in before:
        save(folder / name, [])
        before[name] = (folder / name).read_bytes()
    with Emulator(["qwen2.5-7b-instruct"]) as server:
        result = run(ENDS_TEST, f"--lmstudio-record={mode}", f"--lmstudio-host={server.address}")
    result.assert_outcomes(passed=4, failed=5, skipped=1, xfailed=1, errors=3)
    assert {path.name for path in folder.iterdir()} == saved | before.keys()
    assert {name: (folder / name).read_bytes() for name in before} == before
    kept = "" if mode == "once" else ", and the earlier one is kept"
    result.stdout.fnmatch_lines([f"test_fails.lms.jsonl is not saved{kept}: the test did not pass"])
    result = run(ENDS_TEST, "-k", "test_passes and not unexpectedly")
    result.assert_outcomes(passed=2, deselected=9)
    result.stdout.no_fnmatch_line("*not saved*")


def test_a_copy_without_cassettes_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.cassettes", None)
    result = run(CASSETTE_TEST.replace("EXTRA", '""'))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*This copy of lmstudio_integrations is without cassettes: *"])


def test_a_recording_needs_an_lm_studio(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    monkeypatch.setattr(lms.Client, "find_default_local_api_host", lambda: None)
    result = run(CASSETTE_TEST.replace("EXTRA", '""'), "--lmstudio-record=rewrite")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no LM Studio to record: start it, or name it with --lmstudio-host*"])


BLOCKED = """
    import pytest
    from lmstudio_integrations import LMStudioRuntimeError
    from lmstudio_integrations.langchain import ChatLMStudio

    MODEL = "qwen2.5-7b-instruct"

    @pytest.mark.parametrize("host", [None, "localhost:1234", ["192.0.2.1:1234", "192.0.2.2:1234"]])
    def test_others(host, lmstudio_emulator):
        with pytest.raises(LMStudioRuntimeError, match="--lmstudio-block rejects .*:123[45]: no emulator"):
            ChatLMStudio(model=MODEL, host=host, max_retries=3).invoke("Hello!")

    def test_own(lmstudio_host):
        assert ChatLMStudio(model=MODEL, host=lmstudio_host).invoke("Hello!")

"""


def test_all_other_servers_can_be_blocked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for ports in ("local_candidates", "public_candidates"):  # as outside of tests
        monkeypatch.setattr(discovery, ports, getattr(addresses, ports))
    run(BLOCKED, "--lmstudio-block").assert_outcomes(passed=4)


def test_a_real_server_cannot_be_blocked_and_used(run: Run) -> None:
    result = run("", "--lmstudio-block", "--lmstudio-host", "localhost:1234")
    result.stderr.fnmatch_lines(["ERROR: --lmstudio-block rejects connections to --lmstudio-host; give one of the two"])


APPLICATION = ROOT / "cookbook/testing_faults"
"""The application on the page, and its test."""


@pytest.mark.parametrize(
    ("right", "wrong", "chosen", "found", "outcomes"),
    [
        ("", "", "", "", {"passed": 7}),
        ("(0.1, 0.2, 0.4, 0.8, 1.6)", "()", "drop or unknown", "*ConnectionLostError: *", {"passed": 1, "failed": 1}),
        ("        self.model.close()", "        pass", "None", "*TimeoutError: *", {"passed": 1, "errors": 1}),
    ],
    ids=["no bug", "it does not try again", "it leaves the model busy"],
)
def test_a_bug_of_the_application_is_found(
    pytester: pytest.Pytester, run: Run, right: str, wrong: str, chosen: str, found: str, outcomes: dict[str, int]
) -> None:
    program = (APPLICATION / "draft.py").read_text(encoding="utf-8")
    assert right in program
    pytester.makepyfile(draft=program.replace(right, wrong) if right else program)
    result = run((APPLICATION / "test_draft.py").read_text(encoding="utf-8"), "-rfE", "-k", chosen)
    assert {name: count for name, count in result.parseoutcomes().items() if name != "deselected"} == outcomes
    result.stdout.fnmatch_lines([found] if found else [])
