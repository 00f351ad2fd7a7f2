"""`top`: what it shows of models, hosts and the log, on screens and in pipes."""

import json
import math
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations.cli import _top
from lmstudio_integrations.cli._activity import ModelActivity, activity_lines
from lmstudio_integrations.cli._common import TextConsole, results
from lmstudio_integrations.cli._monitor import Monitor, view_lines, view_members
from lmstudio_integrations.cli._tables import remaining_seconds
from lmstudio_integrations.client.api import sync
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.logs import parse_entry
from lmstudio_integrations.types.models import InstanceProcessingState, LlmInstanceInfo
from tests.cli.managed import EMBEDDER, SMALL, Command, Piped, cells
from tests.cli.test_logs import STATS, TOKEN
from tests.protocol.transcripts import LLM_INSTANCE

NOW = 1100.0
INFO = LlmInstanceInfo.from_dict(
    {**LLM_INSTANCE, "identifier": "a-model-with-a-name", "ttlMs": 600_000, "lastUsedTime": 1_000_000}
)


def activity(queued: int | None = 0, slots: int | None = 4, speed: float | None = None) -> ModelActivity:
    state = None if queued is None else InstanceProcessingState(status="generating", queued=queued)
    return ModelActivity(INFO, "", state, slots, speed, speed and 0.314)


@pytest.mark.parametrize(
    ("queued", "slots", "running", "waiting"),
    [(0, 4, 0, 0), (3, 4, 3, 0), (7, 4, 4, 3), (3, None, 1, 2), (None, 4, 0, 0), (-3, 4, 0, 0), (3, -1, 0, 3)],
)
def test_what_has_no_slot_waits(queued: int | None, slots: int | None, running: int, waiting: int) -> None:
    shown = activity(queued, slots)
    assert (shown.running, shown.waiting) == (running, waiting)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            80,
            [
                "MODEL                STATUS      SLOTS  QUEUE  TOK/S  TTFT    TTL",
                "a-model-with-a-name  GENERATING  4/4    1      40.2   0.31 s  8m 20s",
                "a-model-with-a-name  ?           0/?    0                     8m 20s",
            ],
        ),
        (
            50,
            [
                "MODEL                SLOTS  QUEUE  TOK/S  TTFT",
                "a-model-with-a-name  4/4    1      40.2   0.31 s",
                "a-model-with-a-name  0/?    0",
            ],
        ),
    ],
)
def test_a_narrow_terminal_has_the_columns_that_matter(width: int, expected: list[str]) -> None:
    assert activity_lines([activity(5, 4, 40.21), activity(None, None)], NOW, width) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-model-with-a-name-of-many-words", "a-model-with-a-name-of-ma…  4/4    1      40.2"),
        ("宽" * 30, "宽宽宽宽宽宽宽宽宽宽宽宽 …  4/4    1      40.2"),
    ],
)
def test_a_long_name_leaves_space_for_the_columns_that_matter(name: str, expected: str) -> None:
    shown = replace(activity(5, 4, 40.21), info=INFO.model_copy(update={"identifier": name}))
    head, row = activity_lines([shown], NOW, 47)
    assert head == "MODEL                       SLOTS  QUEUE  TOK/S"
    assert row == expected


def test_a_name_is_no_row_of_its_own() -> None:
    state = InstanceProcessingState(status="idle\nb", queued=0)
    shown = replace(activity(), info=INFO.model_copy(update={"identifier": "a\n\rb"}), device="c\nd", state=state)
    _, row = activity_lines([shown], NOW, 80)
    assert cells(row)[:6] == ["a", "b", "c", "d", "IDLE", "B"]
    assert len(row.splitlines()) == 1


def test_one_view_has_the_loaded_models(managed: Emulator, command: Command) -> None:
    assert command("top", "--once")[1].splitlines()[1:] == ["No model is loaded."]
    managed.load(SMALL, identifier="mine")
    managed.load(EMBEDDER, ttl=600)
    status, out, err = command("top", "--once")
    time, head, *rows = map(cells, out.splitlines())
    assert (status, err, time[1]) == (0, "", managed.address)
    assert head == ["MODEL", "STATUS", "SLOTS", "QUEUE", "TTL"]
    assert rows == [["mine", "IDLE", "0/4", "0"], [EMBEDDER, "IDLE", "0/?", "0", "10m"]]


def test_a_host_that_does_not_respond_is_a_line(managed: Emulator, nobody: str, piped: Piped) -> None:
    managed.load(SMALL)
    hosts = f"{nobody},{managed.address}"
    status, out, _ = piped("top", "--once", "--host", hosts)
    _, _, first, problem, second, row = out.splitlines()
    assert (status, first, second, cells(row)[0]) == (0, nobody, managed.address, SMALL)
    assert "nothing listens there" in problem
    (view,) = map(json.loads, piped("top", "--once", "--json", "--host", hosts)[1].splitlines())
    assert [each["host"] for each in view["hosts"] if each["error"]] == [nobody]


class Waiting(ThreadPoolExecutor):
    """A pool that runs nothing: the test decides when each function returns, and what.

    Attributes:
        futures: Of the functions so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.futures: list[Future[Any]] = []

    def submit(self, *_call: Any) -> Future[Any]:  # type: ignore[override]
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def monitor(nobody: str) -> Iterator[Monitor]:
    """Watches a host that is never asked, if its pool runs nothing."""
    with lms.Client(nobody) as client:
        yield Monitor(client)


def test_a_host_that_is_only_slow_is_asked_once_and_is_normal_again(monitor: Monitor) -> None:
    pool = Waiting()
    for _ in range(2):
        monitor.ask(pool)
        monitor.update()
        monitor.follow_log(pool)
        assert "does not respond: waiting for 0s" in monitor.problem
    (asked,) = pool.futures
    asked.set_result([activity()])
    monitor.update()
    assert (monitor.problem, len(monitor.models)) == ("", 1)
    monitor.follow_log(pool)
    monitor.ask(pool)
    assert len(pool.futures) == 3


@pytest.mark.parametrize("at", ["the question", "the log"])
def test_a_defect_is_not_taken_for_an_error_of_the_server(monitor: Monitor, at: str) -> None:
    pool = Waiting()
    asked = monitor.ask(pool)
    if at == "the log":
        asked.set_result([])
        monitor.update()
        monitor.follow_log(pool)
    pool.futures[-1].set_exception(KeyError("defect"))
    with pytest.raises(KeyError, match="defect"):
        monitor.update()


def test_a_log_that_the_server_rejects_is_read_again_when_the_server_came_back(monitor: Monitor) -> None:
    pool = Waiting()

    def ask(error: lms.LMStudioError | None) -> None:
        asked = monitor.ask(pool)
        asked.set_exception(error) if error else asked.set_result([])
        monitor.update()
        monitor.follow_log(pool)

    def lines() -> list[str]:
        return [line for line, _ in view_lines([monitor], NOW, results(), prompts=False)][1:]

    ask(None)
    pool.futures[-1].set_exception(lms.LMStudioConnectionLostError("lost"))
    ask(None)
    assert len(pool.futures) == 4
    pool.futures[-1].set_exception(lms.LMStudioServerError("Log error: no", title="no"))
    for _ in range(2):
        ask(None)
    assert lines() == ["No model is loaded.", "the log cannot be read: no"]
    assert len(pool.futures) == 6
    ask(lms.LMStudioConnectionLostError("lost"))
    assert lines() == ["lost"]
    ask(None)
    assert lines() == ["No model is loaded."]
    assert len(pool.futures) == 9


def test_a_model_that_is_loaded_again_has_no_speed_yet(managed: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"type": "llm.prediction.output", "output": "", "modelIdentifier": SMALL, "stats": STATS}
    monkeypatch.setattr(sync.Client, "logs", lambda _client: iter([parse_entry({"timestamp": 0, "data": data})]))
    # One thread reads the log before it asks.
    with ThreadPoolExecutor(1) as pool, lms.Client(managed.address) as client:
        monitor = Monitor(client)

        def speeds(*, after_log: bool = False) -> list[float | None]:
            if after_log:
                monitor.follow_log(pool)
            wait([monitor.ask(pool)])
            monitor.update()
            return [each.tokens_per_second for each in monitor.models]

        assert speeds() == []
        assert speeds(after_log=True) == []
        managed.load(SMALL)
        assert speeds() == [None]
        assert speeds(after_log=True) == [40.52]
        assert speeds() == [40.52]
        managed.unload(SMALL)
        managed.load(SMALL)
        assert speeds() == [None]


def test_an_error_in_wide_characters_is_shown_to_its_end(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monitor.last_error = f"{'宽' * 20}\x1b {'y' * 30}"
    shown = [line for line, _ in view_lines([monitor], NOW, TextConsole(), prompts=False)][2:]
    assert shown == ["last error:", f"    {'宽' * 13}", rf"    {'宽' * 7}\x1b", f"    {'y' * 26}", "    yyyy"]


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_are_not_known(
    managed: Emulator, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    stats = {**STATS, "tokensPerSecond": number, "timeToFirstTokenSec": number}
    data = {"type": "llm.prediction.output", "output": "", "modelIdentifier": SMALL, "stats": stats}
    monkeypatch.setattr(sync.Client, "logs", lambda _client: iter([parse_entry({"timestamp": 0, "data": data})]))
    managed.load(SMALL)
    with ThreadPoolExecutor(1) as pool, lms.Client(managed.address) as client:
        monitor = Monitor(client)
        for _ in range(2):
            wait([monitor.ask(pool)])
            monitor.update()
            monitor.follow_log(pool)
        ((model,),) = [host["models"] for host in view_members([monitor], NOW, prompts=False)["hosts"]]
    assert (model["tokensPerSecond"], model["timeToFirstTokenSec"]) == (None, None)
    assert remaining_seconds(INFO.model_copy(update={"ttl_ms": number, "last_used_time": number}), NOW) in {None, 0}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_tokens_are_hidden(
    managed: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
) -> None:
    long = f"{'x' * 280} {TOKEN}"
    data: list[dict[str, Any]] = [
        {"type": "server.log", "level": "error", "content": long},
        {"type": "llm.prediction.input", "input": long, "modelPath": "", "modelIdentifier": ""},
    ]
    monkeypatch.setattr(
        sync.Client, "logs", lambda _client: iter([parse_entry({"timestamp": 0, "data": each}) for each in data])
    )
    managed.load(SMALL, identifier=TOKEN)
    views: list[str] = []

    def until_the_log_is_read(_seconds: float) -> None:
        views.append(capsys.readouterr().out)
        assert len(views) < 1000
        if "x" * 280 in views[-1].split("rompt")[-1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(_top, "sleep", until_the_log_is_read)
    assert run("top", "--prompts", "--host", managed.address, *flags) == 130
    assert HIDDEN in views[-1]
    assert "sk-lm" not in views[-1]


def test_a_host_that_never_replies_delays_no_view(
    managed: Emulator, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def stop_after_the_other_host_has_replied(_seconds: float) -> None:
        silent, other = (each["error"] for each in json.loads(capsys.readouterr().out)["hosts"])
        shown.append(silent)
        if not other:
            raise KeyboardInterrupt

    monkeypatch.setattr(_top, "sleep", stop_after_the_other_host_has_replied)
    monkeypatch.setattr(_top, "_INTERVAL", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{managed.address}"
        assert run("top", "--json", "--host", hosts) == 130
    assert shown[0].startswith("does not respond: waiting for ")


def test_one_view_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, piped: Piped) -> None:
    monkeypatch.setattr(_top, "_TIMEOUT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, out, _ = piped("top", "--once", "--host", f"127.0.0.1:{silent.getsockname()[1]}")
    assert (status, out.splitlines()[1:]) == (0, ["does not respond: waiting for 0s"])


@pytest.mark.parametrize("method", ["get_info", "get_load_config", "get_processing_state"])
def test_a_model_that_is_unloaded_meanwhile_is_no_error(
    managed: Emulator, command: Command, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    call: Callable[..., Any] = getattr(sync.LLM, method)

    def unload_first(model: lms.LLM) -> Any:
        model.unload()
        return call(model)

    managed.load(SMALL)
    monkeypatch.setattr(sync.LLM, method, unload_first)
    status, out, err = command("top", "--once")
    assert (status, out.splitlines()[1:], err) == (0, ["No model is loaded."], "")


@pytest.mark.parametrize("flags", [(), ("--prompts",)])
def test_the_log_has_speed_errors_and_prompts(
    managed: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
) -> None:
    managed.load(SMALL)
    views: list[str] = []

    with lms.Client(managed.address) as client:

        def use(_seconds: float) -> None:
            views.append(capsys.readouterr().out)
            assert len(views) < 1000, views[-1]
            ((host,),) = [json.loads(views[-1])["hosts"]]
            if host["lastError"] and host["models"][0]["tokensPerSecond"]:
                raise KeyboardInterrupt
            client.llm.model(SMALL).respond("a\nsecret")
            with pytest.raises(lms.LMStudioModelNotFoundError):
                client.llm.get_model_info("nothing")

        monkeypatch.setattr(_top, "sleep", use)
        assert run("top", "--json", "--host", managed.address, *flags) == 130
    (last,) = json.loads(views[-1])["hosts"]
    assert "nothing" in last["lastError"]
    assert ("a secret" in last.get("lastPrompt", "")) == bool(flags)
