"""The fixtures for users' own tests, each in a pytest run of its own. `cassettes/test_fixture.py` has another one."""

import sys

import pytest

from lmstudio_integrations.client.transport.connect import addresses, discovery
from lmstudio_integrations.emulator import Emulator
from tests.docs.snippets import ROOT
from tests.support.plugin_run import Run, run

__all__ = ["run"]

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]


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


def test_a_copy_without_cassettes_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.cassettes.modes", None)
    result = run("def test_it(lmstudio_cassette): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*This copy of lmstudio_integrations is without cassettes: *"])


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
