"""The fixture `lmstudio_cassette`, each in a pytest run of its own."""

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes.cassette import save
from lmstudio_integrations.emulator import Emulator
from tests.support.plugin_run import Run, run

__all__ = ["run"]

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"

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
    result = run(source.replace("a-b-c", "a-b-d"), "-k", "a-b-d")
    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(["there is no cassette '*a-b-d*'; record it with --lmstudio-record=once"])
    result.stdout.no_fnmatch_line("*lmstudio_integrations*.py*")
    # A program that handles the error passes, and its test must fail.
    result = run(CASSETTE_TEST.replace("EXTRA", r'"!\u202e"'))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*have all requests; record it again with --lmstudio-record=rewrite:",
            r'*recorded "a b/c", sent "a b/c!\u202e"*',
        ]
    )


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


def test_a_recording_needs_an_lm_studio(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    monkeypatch.setattr(lms.Client, "find_default_local_api_host", lambda: None)
    result = run(CASSETTE_TEST.replace("EXTRA", '""'), "--lmstudio-record=rewrite")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no LM Studio to record: start it, or name it with --lmstudio-host*"])


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_cassette_that_cannot_be_used_is_told_without_the_lines_of_the_package(
    run: Run, pytester: pytest.Pytester, when: str
) -> None:
    name = "test_it_responds-a-b-c.lms.jsonl"
    line = "lmstudio_cassette.path.touch()  # as another program may do it"
    source = CASSETTE_TEST.replace("a b/c", "a-b-c").replace("EXTRA", '""')
    module = pytester.makepyfile(source).stem
    if when == "setup":
        folder = pytester.mkdir("cassettes") / module
        folder.mkdir()
        (folder / f".recording-{name}").touch()
    else:
        source = f"{source}    {line}\n"
    with Emulator(["qwen2.5-7b-instruct"]) as server:
        result = run(source, "--lmstudio-record=once", f"--lmstudio-host={server.address}")
    result.assert_outcomes(errors=1, passed=0 if when == "setup" else 1)
    told = "is being recorded in another place*" if when == "setup" else "was saved by another recording meanwhile*"
    result.stdout.fnmatch_lines([f"*{told}"])
    result.stdout.no_fnmatch_line("*lmstudio_integrations*.py*")
