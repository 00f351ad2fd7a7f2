"""Recordings for the tests: the one of `--from-cassette`, and one of an emulator that stands in for LM Studio."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lmstudio_integrations.cassettes.cassette import Interaction, read
from lmstudio_integrations.errors import LMStudioError
from tests.live.recording import ByQuestion, ask_emulator, by_question

NO_CASSETTE = "needs --from-cassette=FILE, which `python -m tools.probe MODEL --to FILE` writes"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of evidence for each question of the recording."""
    if "evidence" not in metafunc.fixturenames:
        return
    path: Path | None = metafunc.config.getoption("from_cassette", None)
    if path is None:
        metafunc.parametrize("evidence", [pytest.param("", marks=pytest.mark.skip(NO_CASSETTE))])
        return
    try:
        names = list(by_question(read(path)))
    except LMStudioError as error:
        raise pytest.UsageError(str(error)) from error
    if not names:
        raise pytest.UsageError(f"the cassette {path} has no question of the probe; {NO_CASSETTE}")
    metafunc.parametrize("evidence", names)


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest) -> Sequence[Interaction]:
    """The recording of `--from-cassette`."""
    return read(request.config.getoption("from_cassette"))


@pytest.fixture(scope="session")
def emulated(recorded: Sequence[Interaction], tmp_path_factory: pytest.TempPathFactory) -> ByQuestion:
    """What the emulator does in the questions of the recording."""
    return ask_emulator(recorded, tmp_path_factory.mktemp("emulated") / "emulated.jsonl")


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> ByQuestion:
    """All questions, asked of an emulator."""
    return ask_emulator((), tmp_path_factory.mktemp("probed") / "probed.jsonl")
