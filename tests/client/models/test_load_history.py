"""What loads came to: which models fit by what was seen, and the file that keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models.load_history import Load, LoadHistory, MachineHistory, Sized
from lmstudio_integrations.protocol.requests import OnDevice

SERVER = "127.0.0.1:1234"
LOCAL, STUDIO = OnDevice(deviceIdentifier=None), OnDevice(deviceIdentifier="studio")


def sized(key: str, memory_bytes: int | None = 10, *, context: int = 4096, slots: int = 4) -> Sized:
    return Sized(Load(key, context, slots), memory_bytes)


A, B, C = map(sized, "abc")


def history(*outcomes: tuple[list[Sized], bool]) -> MachineHistory:
    made = MachineHistory(SERVER, None)
    for models, accepted in outcomes:
        made.record(models, accepted=accepted)
    return made


# What was seen --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "fits"),
    [
        ([A, B], True),
        ([B, A], True),
        ([B], True),
        ([sized("a", context=2048), sized("b", slots=1)], True),
        ([sized("a", context=4097)], None),
        ([sized("a", slots=5)], None),
        ([A, A], None),
        ([A, B, C], None),
        ([C], None),
    ],
)
def test_what_was_in_memory_at_once_fits_again_and_so_does_less(models: list[Sized], fits: bool | None) -> None:
    assert history(([A, B], True)).fits(models) is fits


@pytest.mark.parametrize(
    ("models", "fits"),
    [
        ([A, B], False),
        ([C, B, A], False),
        ([sized("a", context=8192), sized("b", slots=8)], False),
        ([sized("a", context=4095), B], None),
        ([A, sized("b", slots=3)], None),
        ([A], None),
        ([A, A], None),
        ([A, C], None),
    ],
)
def test_what_was_refused_does_not_fit_and_neither_does_more(models: list[Sized], fits: bool | None) -> None:
    assert history(([A, B], False)).fits(models) is fits


@pytest.mark.parametrize("accepted", [True, False])
def test_the_newest_outcome_counts(accepted: bool) -> None:
    one, other = ([A, B], True), ([A], False)
    newest, older = (one, other) if accepted else (other, one)
    assert history(older, newest).fits([A]) is accepted
    assert history(newest, older, newest, ([C], not accepted)).fits([A]) is accepted
    assert history(([A], not accepted), ([A], accepted)).fits([A]) is accepted


@pytest.mark.parametrize("accepted", [True, False])
def test_a_default_context_that_is_not_known_is_like_no_other(accepted: bool) -> None:
    default = sized("a", context=0)
    assert history(([A], accepted)).fits([default]) is None
    assert history(([default], accepted)).fits([A]) is None
    assert history(([default], accepted)).fits([sized("a", context=1)]) is None
    assert history(([default], accepted)).fits([default]) is accepted


def test_each_load_needs_a_counterpart_of_its_own() -> None:
    large, small = sized("a", context=8192), sized("a", context=1024)
    assert history(([large, small], True)).fits([small, A]) is True
    assert history(([small, large], True)).fits([A, A]) is None


@pytest.mark.parametrize(
    ("outcomes", "capacity", "limit"),
    [
        ([], 100, 100),
        ([], None, None),
        ([([sized("a", 120)], True)], 100, 120),
        ([([sized("a", 80)], True)], 100, 100),
        ([([sized("a", 80)], False)], 100, 79),
        ([([sized("a", 180)], False)], 100, 100),
        ([([sized("a", 80)], False), ([sized("b", 60)], False)], 100, 59),
        ([([sized("a", 80)], False), ([sized("b", 90)], True)], 100, 100),
        ([([sized("a", 95)], False), ([sized("b", 90)], True)], 100, 94),
        ([([sized("a", 40), sized("b", 41)], False)], 100, 80),
        ([([sized("a", None), sized("b", 41)], False)], 100, 40),
    ],
)
def test_the_limit_is_the_capacity_corrected_by_what_was_seen(
    outcomes: list[tuple[list[Sized], bool]], capacity: int | None, limit: int | None
) -> None:
    assert history(*outcomes).limit(capacity) == limit


def test_the_context_length_of_the_last_load_with_the_same_request_is_known() -> None:
    seen = MachineHistory(SERVER, None)
    seen.record_context("a", None, 4096)
    seen.record_context("a", 9000, 8192)
    assert (seen.context_length("a", None), seen.context_length("a", 9000)) == (4096, 8192)
    assert seen.context_length("a", 8192) is seen.context_length("b", None) is None
    seen.record_context("a", None, 2048)
    assert seen.context_length("a", None) == 2048


def test_only_the_newest_outcomes_are_remembered() -> None:
    seen = history(*(([sized(f"m{number}")], True) for number in range(300)))
    assert seen.fits([sized("m299")]) is seen.fits([sized("m44")]) is True
    assert seen.fits([sized("m43")]) is None


# The file -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "loads.jsonl"
    monkeypatch.setenv("LMSTUDIO_LOADS", str(path))
    return path


def record_some(seen: MachineHistory) -> None:
    seen.record([B, A], accepted=True)
    seen.record([C], accepted=False)
    seen.record_context("a", None, 4096)


def test_another_process_knows_what_was_seen(path: Path) -> None:
    record_some(LoadHistory().of(SERVER, LOCAL))
    known = LoadHistory().of(SERVER, LOCAL)
    assert (known.fits([A, B]), known.fits([C]), known.context_length("a", None)) == (True, False, 4096)
    assert known.limit(100) == history(([A, B], True), ([C], False)).limit(100)


def test_machines_and_servers_are_kept_apart(path: Path) -> None:
    record_some(LoadHistory().of(SERVER, STUDIO))
    known = LoadHistory()
    assert known.of(SERVER, STUDIO).fits([A]) is True
    assert known.of(SERVER, LOCAL).fits([A]) is known.of(SERVER, OnDevice()).fits([A]) is None
    assert LoadHistory().of("127.0.0.1:1235", STUDIO).fits([A]) is None


def test_a_line_is_written_for_what_is_new_only(path: Path) -> None:
    seen = LoadHistory().of(SERVER, LOCAL)
    for _ in range(3):
        record_some(seen)
    record_some(LoadHistory().of(SERVER, LOCAL))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "server": SERVER,
            "device": None,
            "loads": [["a", 4096, 4], ["b", 4096, 4]],
            "accepted": True,
            "memory_bytes": 20,
        },
        {"server": SERVER, "device": None, "loads": [["c", 4096, 4]], "accepted": False, "memory_bytes": 10},
        {"server": SERVER, "device": None, "model_key": "a", "requested": None, "actual": 4096},
    ]


def test_without_the_variable_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTUDIO_LOADS")
    record_some(LoadHistory().of(SERVER, LOCAL))
    assert LoadHistory().of(SERVER, LOCAL).fits([A]) is None
    assert not path.exists()


GOOD: dict[str, Any] = {"server": SERVER, "device": None, "loads": [["a", 4096, 4]], "accepted": True}
GOOD["memory_bytes"] = 10
CONTEXT: dict[str, Any] = {"server": SERVER, "device": None, "model_key": "a", "requested": None, "actual": 4096}


def without(line: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != name}


MALFORMED = [
    '{"server": "127',
    "[]",
    "{}",
    *(json.dumps(without(GOOD, name)) for name in GOOD),
    *(json.dumps(without(CONTEXT, name)) for name in CONTEXT),
    json.dumps(GOOD | {"loads": 3}),
    json.dumps(GOOD | {"loads": [["a", 4096]]}),
    json.dumps(GOOD | {"loads": [["a", "4096", 4]]}),
    json.dumps(GOOD | {"loads": [["a", 4096, None]]}),
    json.dumps(GOOD | {"loads": [[["a"], 4096, 4]]}),
    json.dumps(GOOD | {"accepted": "yes"}),
    json.dumps(GOOD | {"memory_bytes": "10"}),
    json.dumps(GOOD | {"device": 3}),
    json.dumps(CONTEXT | {"model_key": ["a"]}),
    json.dumps(CONTEXT | {"requested": [1]}),
    json.dumps(CONTEXT | {"actual": "4096"}),
]


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_line_is_one_warning_and_the_others_count(path: Path, line: str) -> None:
    other = json.dumps(GOOD | {"loads": [["b", 4096, 4]]})
    path.write_text(f"{other}\n{line}\n\n{line}\n{json.dumps(CONTEXT)}\n")
    known = LoadHistory()
    with pytest.warns(lms.LMStudioConfigWarning, match="2 lines of LMSTUDIO_LOADS=.* cannot be read") as warned:
        known.of(SERVER, STUDIO)
    seen = known.of(SERVER, LOCAL)
    assert len(warned) == 1
    assert (seen.fits([B]), seen.fits([A]), seen.context_length("a", None)) == (True, None, 4096)
    record_some(seen)
    assert seen.fits([A]) is True


def test_a_malformed_line_of_another_server_is_not_read(path: Path) -> None:
    path.write_text(json.dumps(GOOD | {"server": "other", "loads": 3}) + "\n")
    assert LoadHistory().of(SERVER, LOCAL).fits([A]) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe\n"])
def test_an_unreadable_file_is_one_warning(path: Path, content: bytes | None) -> None:
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.warns(lms.LMStudioConfigWarning, match="cannot read LMSTUDIO_LOADS=") as warned:
        seen = LoadHistory().of(SERVER, LOCAL)
    assert len(warned) == 1
    assert seen.fits([A]) is None


def test_a_file_that_cannot_be_written_is_one_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_LOADS", str(path / "in-no-folder"))
    seen = LoadHistory().of(SERVER, LOCAL)
    with pytest.warns(lms.LMStudioConfigWarning, match="cannot write to LMSTUDIO_LOADS=") as warned:
        record_some(seen)
    assert len({str(each.message) for each in warned}) == 1
    assert seen.fits([A, B]) is True


@pytest.mark.parametrize("backwards", [False, True])
def test_each_load_gets_its_counterpart_in_whichever_order_they_are_listed(backwards: bool) -> None:
    seen = [sized("a", context=8192, slots=1), sized("a", context=4096)]
    planned = [sized("a", context=4096, slots=1), sized("a", context=8192, slots=1)]
    for accepted in (True, False):
        larger, smaller = (seen, planned) if accepted else (planned[::-1], planned)
        assert history((larger, accepted)).fits(smaller[::-1] if backwards else smaller) is accepted
