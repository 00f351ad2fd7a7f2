"""The function of a user that sees each request before it is written, and what a recording says at its end."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import pytest_plugin
from lmstudio_integrations.cassettes import Recording, Replay, use_cassette
from lmstudio_integrations.cassettes.cassette import read
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioValueError
from tests.cassettes.test_cassette_modes import CHAT, say, texts_of
from tests.support.plugin_run import Run, run

__all__ = ["run"]

pytest_plugins = ["pytester"]

Request = dict[str, Any]


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([CHAT]) as running:
        yield running


def in_texts(old: str, new: str) -> Callable[[Request], Request]:
    """Replace a text wherever a request has it."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replaced(each) for name, each in value.items()}
        if isinstance(value, list):
            return [replaced(each) for each in value]
        return value.replace(old, new) if isinstance(value, str) else value

    return replaced


def without_predictions(request: Request) -> Request | None:
    return None if request["endpoint"] == "predict" else request


def test_what_the_function_returns_is_written_and_replayed(server: Emulator, tmp_path: Path) -> None:
    """Also where the text arrives in fragments, and in the request that is found by it."""
    path, hide = tmp_path / "x", in_texts("Ann Lee", "<name>")
    with use_cassette(path, "once", server=server.address, before_record=hide) as recorded:
        answer = say(recorded.address, "I am Ann Lee.")
    assert "Ann Lee" in answer
    assert not re.search("Ann|Lee", path.read_text(encoding="utf-8"))
    with use_cassette(path, before_record=hide) as replayed:
        assert say(replayed.address, "I am Ann Lee.") == answer.replace("Ann Lee", "<name>")
    with use_cassette(path) as replayed, pytest.raises(lms.LMStudioServerError, match="no such request"):
        say(replayed.address, "I am Ann Lee.")


def test_the_function_sees_a_request_without_its_secrets_and_a_streamed_text_as_a_whole(
    server: Emulator, tmp_path: Path
) -> None:
    seen: list[Request] = []

    def see(request: Request) -> Request:
        seen.append(request)
        return request

    recordings = {"with": see, "without": None}
    for name, before_record in recordings.items():
        with Recording(tmp_path / name, server.address, before_record=before_record) as recording:
            say(recording.address, "password=hunter2 and so on")
    assert "hunter2" not in str(seen)
    (prediction,) = (each for each in seen if each["endpoint"] == "predict")
    assert prediction.keys() == {"namespace", "endpoint", "body", "events"}
    first = next(each for each in prediction["events"] if each["body"]["type"] == "fragment")
    assert "password=********** and so on" in first["body"]["fragment"]["content"]
    server.unload(CHAT)
    for name, before_record in recordings.items():
        with Recording(tmp_path / f"{name}-2", server.address, before_record=before_record) as recording:
            say(recording.address, "nothing to hide here")
    fragments = [
        [packet["fragment"] for packet in read(tmp_path / name)[-1].packets() if packet["type"] == "fragment"]
        for name in ("with-2", "without-2")
    ]
    assert fragments[0] == fragments[1]
    assert len(fragments[0]) > 1


def test_what_the_function_leaves_out_is_not_in_the_cassette(
    server: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x"
    with use_cassette(path, "once", server=server.address, before_record=without_predictions) as recorded:
        say(recorded.address, "a")
    assert texts_of(path) == []
    assert read(path) != []
    for before_record, cause in ((without_predictions, "before_record leaves"), (None, "It has requests of")):
        with (
            use_cassette(path, before_record=before_record) as replayed,
            pytest.raises(lms.LMStudioServerError, match=cause),
        ):
            say(replayed.address, "a")


def test_what_is_no_request_is_an_error(server: Emulator, tmp_path: Path) -> None:
    wrong: Any = lambda request: request["endpoint"]  # noqa: E731 - the mistake
    with (
        pytest.raises(LMStudioValueError, match=r"before_record must return the request .* it returned str"),
        use_cassette(tmp_path / "x", "once", server=server.address, before_record=wrong) as recorded,
    ):
        say(recorded.address, "a")
    with use_cassette(tmp_path / "x", "once", server=server.address) as recorded:
        say(recorded.address, "a")
    broken: Any
    for broken, cause in ((wrong, "before_record must return"), ({}.__getitem__, "TypeError: unhashable")):
        with (
            use_cassette(tmp_path / "x", before_record=broken) as replayed,
            pytest.raises(lms.LMStudioServerError, match=rf"before_record failed(?s:.*){cause}") as caught,
        ):
            say(replayed.address, "a")
        assert isinstance(replayed, Replay)
        assert "before_record failed" in replayed.unmatched[0]
        assert "context_length" not in str(caught.value)


def test_only_a_recorded_request_must_keep_its_events(server: Emulator, tmp_path: Path) -> None:
    path, seen = tmp_path / "x", list[Any]()

    def without_events(request: Request) -> Request:
        seen.append(request.pop("events"))
        return request

    with (
        pytest.raises(LMStudioValueError, match="it returned dict without 'events'"),
        use_cassette(path, "once", server=server.address, before_record=without_events) as recorded,
    ):
        say(recorded.address, "a")
    with use_cassette(path, "once", server=server.address) as recorded:
        answer = say(recorded.address, "a")
    seen.clear()
    with use_cassette(path, before_record=without_events) as replayed:
        assert say(replayed.address, "a") == answer
    assert seen
    assert not any(seen)


def test_a_recording_says_how_many_values_were_removed_and_where_texts_remain(
    server: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lmstudio_integrations.cassettes")
    with use_cassette(tmp_path / "x", "once", server=server.address) as recorded:
        say(recorded.address, "password=hunter2")
        say(recorded.address, "Hi")
    assert isinstance(recorded, Recording)
    head, *places = recorded.report.splitlines()
    requests = len(read(tmp_path / "x"))
    assert head == f"{requests} requests, 2 values removed; texts remain in:"
    assert "  llm.predict history.messages.content.text (2)" in places
    assert any(re.fullmatch(r"  llm.predict fragment\.content \(\d+\)", each) for each in places)
    assert caplog.messages[-1] == f"recorded {tmp_path / 'x'}: {recorded.report}"


def test_names_that_a_model_made_up_cannot_control_the_terminal_of_a_test_run() -> None:
    lines: list[str] = []
    report = SimpleNamespace(lmstudio_recorded="x: texts remain in:\n  arguments.\x1b[2J\u202e (1)")
    reporter: Any = SimpleNamespace(stats={"": [report]}, section=lines.append, write_line=lines.append)
    pytest_plugin.pytest_terminal_summary(reporter)
    assert lines == ["recorded cassettes", "x: texts remain in:\n  arguments.\\x1b[2J\\u202e (1)"]


PLUGIN_TEST = """
import lmstudio_integrations as lms
import pytest

@pytest.fixture
def lmstudio_before_record():
    def hide(request):
        if request["endpoint"] == "predict":
            request["body"]["history"] = "hidden"
        return request
    return hide

def test_it_responds(lmstudio_cassette):
    with lms.Client() as client:
        assert client.llm.model("qwen2.5-7b-instruct").respond("Hello there").content
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n1")], ids=["here", "in a worker"])
def test_a_test_has_the_function_by_a_fixture_and_the_summary_says_what_was_recorded(
    run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    with Emulator(["qwen2.5-7b-instruct"]) as server:
        result = run(PLUGIN_TEST, "--lmstudio-record=once", f"--lmstudio-host={server.address}", *workers)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= recorded cassettes =*", "*test_it_responds.lms.jsonl: * removed; texts *"])
    (path,) = pytester.path.glob("cassettes/**/*.jsonl")
    assert "Hello there" not in path.read_text(encoding="utf-8").split('"received"')[0]
    result = run(PLUGIN_TEST, *workers)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*recorded cassettes*")
