"""The trace of calls."""

import json
from pathlib import Path

import pytest

from tests.structure import calls
from tests.structure.calls import SUBMITTED, WOKEN, Numbers, compare, measure, reentered, report, ways_out


def test_a_way_out_ends_with_the_last_submission_before_the_caller_waits() -> None:
    entries = ["a", "a", "b", SUBMITTED, "a", SUBMITTED, "c", WOKEN, "d", WOKEN, "b", "b", SUBMITTED]
    assert ways_out(entries) == [["a", "b", "a"], ["b"]]


def test_a_return_is_a_second_visit_of_a_file() -> None:
    assert reentered([["a", "b", "a", "c", "a"], ["b", "c"]]) == {"a": 2}


@pytest.fixture(scope="module")
def numbers() -> dict[str, Numbers]:
    return measure("LLM.respond_stream")


def test_a_call_is_traced_until_its_first_chunk_and_for_a_token(numbers: dict[str, Numbers]) -> None:
    cold, warm, token, awaited = (numbers[phase] for phase in ("cold", "warm", "token", "awaited"))
    assert "client/sync.py" in cold["files"]
    assert cold["calls"] >= warm["calls"] > awaited["calls"] > token["calls"] > 0
    assert len(cold["ways_out"]) == 2, "the model is found, and writes"
    assert cold["returns"] == sum(cold["reentered"].values())
    assert not token["ways_out"]


def test_the_numbers_are_the_same_in_each_run(numbers: dict[str, Numbers]) -> None:
    assert measure("LLM.respond_stream") == numbers


@pytest.mark.parametrize("surface", ["ChatLMStudio.astream", "LMStudio.astream_chat"])
def test_a_coroutine_is_traced_too(surface: str) -> None:
    assert measure(surface)["awaited"]["calls"] > 0


def test_a_report_has_the_numbers_and_the_ways(numbers: dict[str, Numbers]) -> None:
    lines = list(report({"LLM.respond_stream": numbers}))
    assert lines[1].split()[:3] == ["LLM.respond_stream", "cold", str(len(numbers["cold"]["files"]))]
    assert any(" > client/" in line for line in lines)


def test_results_are_compared_with_earlier_ones(
    numbers: dict[str, Numbers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure_nothing(_: str) -> dict[str, Numbers]:
        return numbers

    monkeypatch.setattr(calls, "SURFACES", {"LLM.respond_stream": None})
    monkeypatch.setattr(calls, "measure", measure_nothing)
    calls.main(["--json"])
    earlier = tmp_path / "earlier.json"
    earlier.write_text(capsys.readouterr().out)
    assert json.loads(earlier.read_text()) == {"LLM.respond_stream": numbers}
    calls.main(["--against", str(earlier)])
    count = len(numbers["cold"]["files"])
    assert f"{count} > {count}" in capsys.readouterr().out


def test_what_was_not_traced_earlier_is_new(numbers: dict[str, Numbers]) -> None:
    assert [line.split()[2:4] for line in compare({}, {"new": numbers})][1] == ["-", ">"]
