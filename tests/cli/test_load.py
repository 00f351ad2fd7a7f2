"""`load`: which model it finds, how it is loaded, and what it warns about."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli import _load, _loaded_models, _questions
from lmstudio_integrations.cli._load import gpu_ratio
from lmstudio_integrations.cli._loaded_models import open_llm
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from tests.cli.managed import EMBEDDER, LARGE, SMALL, Command
from tests.cli.terminal import TIMEOUT, interrupt, needs_pty, on_terminal, started


def test_a_model_is_loaded_just_in_time_and_its_identifier_printed(managed: Emulator, command: Command) -> None:
    status, out, err = command("load", SMALL)
    assert (status, out) == (0, f"{SMALL}\n")
    assert err.startswith(f"Loaded {SMALL} (2.50 MB, ")
    assert [load.mode for load in managed.loads] == ["just_in_time"]
    assert [info.ttl_ms for info in managed.loaded()] == [3_600_000]


def test_the_models_that_a_load_evicts_are_named(managed: Emulator, command: Command) -> None:
    command("load", SMALL)
    assert f"It evicted {SMALL} (Auto-Evict)" in command("load", LARGE)[2]
    assert "evicted" not in command("load", LARGE)[2]
    assert "evicted" not in command("load", SMALL, "--explicit")[2]


def test_what_others_unload_during_an_explicit_load_is_not_called_evicted(
    managed: Emulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.load(SMALL)

    @contextlib.contextmanager
    def bar(_label: str) -> Iterator[Callable[[float], None]]:
        managed.unload(SMALL)
        yield lambda _part: None

    monkeypatch.setattr(_load, "progress_bar", bar)
    assert "evicted" not in command("load", LARGE, "--explicit")[2]


def test_a_part_of_the_name_loads_an_embedding_model_as_well(managed: Emulator, command: Command) -> None:
    assert command("load", "EMBED")[1] == f"{EMBEDDER}\n"
    assert [info.type for info in managed.loaded()] == ["embedding"]


def test_the_settings_of_a_load_reach_the_server(managed: Emulator, command: Command) -> None:
    assert command("load", SMALL, "--ttl", "60", "-c", "2048", "--gpu", "max")[0] == 0
    (info,) = managed.loaded()
    assert (info.ttl_ms, info.context_length) == (60_000, 2048)
    assert managed.loads[0].config == {"autoFit": False, "contextLength": 2048, "gpu": {"ratio": 1.0}}


def test_an_explicit_load_has_no_end_unless_it_has_a_ttl(managed: Emulator, command: Command) -> None:
    command("load", SMALL, "--explicit")
    command("load", LARGE, "--explicit", "--ttl", "9")
    assert [load.mode for load in managed.loads] == ["explicit", "explicit"]
    assert [info.ttl_ms for info in managed.loaded()] == [None, 9_000]


def test_an_identifier_loads_another_instance(managed: Emulator, command: Command) -> None:
    command("load", SMALL)
    assert command("load", SMALL, "--identifier", "mine")[1] == "mine\n"
    assert [info.identifier for info in managed.loaded()] == [SMALL, "mine"]
    status, out, _ = command("load", SMALL, "--identifier", "mine")
    assert "already exists" in str(status)
    assert out == ""


@pytest.mark.parametrize(
    ("flags", "others"),
    [
        (["-c", "2048"], "context length 4096 instead of 2048"),
        (["--ttl", "60"], "TTL 10m instead of 1m"),
        (["--explicit"], "TTL 10m instead of none"),
        (["--explicit", "--ttl", "600"], None),
        ([], None),
    ],
)
def test_a_loaded_model_is_named_with_a_warning_of_other_settings(
    managed: Emulator, command: Command, flags: list[str], others: str | None
) -> None:
    managed.load(SMALL, identifier="mine", ttl=600)
    status, out, err = command("load", SMALL, *flags)
    assert (status, out) == (0, "mine\n")
    named, *warnings = err.splitlines()
    assert named == f"mine ({SMALL}) is already loaded."
    suggestion = "to change them, unload it first: lmsi unload mine"
    assert warnings == ([f"Warning: mine has other settings than requested: {others}; {suggestion}"] if others else [])
    assert len(managed.loads) == 1


def test_a_context_beyond_the_maximum_is_a_warning(command: Command) -> None:
    status, _, err = command("load", SMALL, "-c", "100000")
    assert status == 0
    assert "context length 8192 instead of 100000; its longest context length is 8192" in err


def test_a_loaded_model_is_printed_as_json(command: Command) -> None:
    assert json.loads(command("load", SMALL, "--json")[1])["identifier"] == SMALL


def test_the_memory_is_estimated_without_a_load(managed: Emulator, command: Command) -> None:
    status, out, _ = command("load", SMALL, "--estimate-only")
    assert status == 0
    assert "Total memory: " in out
    assert "passesGuardrails" in json.loads(command("load", SMALL, "--estimate-only", "--json")[1])
    assert not managed.loads


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vendor"], f"'vendor' matches 3 models; name one of them: {EMBEDDER}, {LARGE}, {SMALL}"),
        (["smal", "--exact"], f"no downloaded model matches 'smal'; did you mean '{SMALL}'?"),
        (["zzz"], "no downloaded model matches 'zzz'; `lmsi ls` lists them, and `lmsi get zzz` downloads one"),
        ([], f"name a model: stuck, {EMBEDDER}, {LARGE}, {SMALL}"),
    ],
)
def test_a_name_that_means_no_single_model_is_an_error(command: Command, arguments: list[str], expected: str) -> None:
    assert command("load", *arguments) == (f"Error: {expected}", "", "")


def test_a_model_that_is_loaded_again_during_a_command_draws_no_line_of_its_own(managed: Emulator) -> None:
    with lms.Client(managed.address) as client:
        states = [open_llm(client, SMALL, None).model.state for _ in ("loads it", "finds it loaded")]
    assert [state.on_load_progress is None for state in states] == [False, True]
    assert states[1].show_progress is False


def test_on_a_terminal_the_user_picks_one_of_several_models(
    managed: Emulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded_models, "has_terminal", lambda: True)
    monkeypatch.setattr(_questions, "read_line", lambda _prompt: "2")
    status, out, err = command("load", "vendor")
    assert (status, out) == (0, f"{LARGE}\n")
    assert [line.split()[1] for line in err.splitlines()[:3]] == [EMBEDDER, LARGE, SMALL]


def test_the_first_of_several_models_is_loaded_on_request(command: Command) -> None:
    assert command("load", "vendor", "--yes")[1] == f"{EMBEDDER}\n"


@pytest.mark.parametrize("given", ["2", "-0.1", "most", "nan"])
def test_an_invalid_share_on_the_gpu_is_wrong_usage(managed: Emulator, command: Command, given: str) -> None:
    status, _, err = command("load", SMALL, f"--gpu={given}")
    assert status == 2
    assert "is not off, max, or a number from 0 to 1" in err
    assert not managed.loads


def test_the_share_on_the_gpu_has_names() -> None:
    assert [gpu_ratio(each) for each in ("off", "Max", "0.5")] == [0.0, 1.0, 0.5]


@pytest.mark.slow
def test_an_interrupt_cancels_the_load(managed: Emulator) -> None:
    with started("load", "stuck", "--host", managed.address) as process:
        managed.wait_for(lambda: bool(managed.loads), timeout=TIMEOUT)
        assert interrupt(process) == (130, "", "")
    managed.wait_for(lambda: managed.loads[0].state == "cancelled")


@pytest.mark.slow
@needs_pty
def test_a_load_on_a_terminal_has_a_bar(managed: Emulator) -> None:
    with on_terminal("load", SMALL, "--host", managed.address) as terminal:
        assert terminal.wait() == 0
    assert f"Loading {SMALL}" in terminal.text
    assert "100%" in terminal.text


TOOL = {"type": "function", "function": {"name": "pier", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("name", "text", "messages", "tools"),
    [
        ("prompt.txt", "Be brief.", [SYSTEM], []),
        ("prompt.md", "{be} brief.", [{"role": "system", "content": "{be} brief."}], []),
        ("prompt.json", json.dumps([SYSTEM]), [SYSTEM], []),
        ("prompt.json", json.dumps({"messages": [SYSTEM], "tools": [TOOL]}), [SYSTEM], ["pier"]),
        ("prompt.json", json.dumps({"tools": [TOOL]}), [{"role": "user", "content": "."}], ["pier"]),
    ],
)
def test_a_prompt_is_processed_ahead(
    managed: Emulator, command: Command, tmp_path: Path, name: str, text: str, messages: list[Any], tools: list[str]
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    status, out, err = command("load", SMALL, "--warm", str(path))
    assert (status, out) == (0, f"{SMALL}\n")
    assert f"Processed {path} (" in err
    (record,) = managed.predictions
    assert (record.messages, [tool["function"]["name"] for tool in record.tools]) == (messages, tools)
    assert record.stats["predictedTokensCount"] == 1


@pytest.mark.parametrize(
    ("model", "name", "text", "expected"),
    [
        (SMALL, "a.json", "[]", "must hold a list of messages"),
        (SMALL, "a.json", '{"messages": []}', "must hold a list of messages"),
        (SMALL, "a.json", '{"messages": "no"}', "messages"),
        (SMALL, "a.json", '[{"role": "system", "content": " "}]', "the prompt is empty"),
        (SMALL, "a.json", '{"tools": {"name": "no"}}', "must hold a list of messages"),
        (SMALL, "a.json", '{"tools": [{"name": "pier"}]}', "a tool must be"),
        (SMALL, "a.json", '{"tools": [{"type": "function", "function": {}}]}', "a string as name"),
        (SMALL, "a.json", json.dumps({"tools": [TOOL, TOOL]}), "two of the tools have the name 'pier'"),
        (SMALL, "a.json", "no", "is not JSON"),
        (SMALL, "a.json", '{"prompt": "no"}', "must hold a list of messages"),
        (SMALL, "a.txt", " ", "the system prompt is empty"),
        (SMALL, "a.json", '{"messages": [{"role": "poet", "content": "no"}]}', "poet"),
        (EMBEDDER, "a.txt", "no", "is an embedding model"),
    ],
)
def test_what_is_no_prompt_is_an_error_before_the_load(
    managed: Emulator, command: Command, tmp_path: Path, model: str, name: str, text: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    status, out, err = command("load", model, "--warm", str(path))
    assert status != 0
    assert expected in " ".join(re.sub("[│╭╮╰╯─]", "", f"{status} {err}").split())
    assert out == ""
    assert not managed.loads


def test_tools_have_the_form_in_which_an_agent_sends_them(managed: Emulator, command: Command, tmp_path: Path) -> None:
    properties = {"to": {"type": "string", "title": "To"}, "where": {"$ref": "#/$defs/Where"}}
    parameters = {"title": "pier", "properties": properties, "$defs": {"Where": {"enum": ["here"]}}, "type": "object"}
    tool = {"function": {"parameters": parameters, "name": "the pier", "strict": True}, "type": "function"}
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps({"messages": [SYSTEM], "tools": [tool]}), encoding="utf-8")
    command("load", SMALL, "--warm", str(path))
    ChatLMStudio(model=SMALL, host=managed.address).bind_tools([tool]).invoke([("system", "Be brief."), "Hello"])
    warmed, asked = (json.dumps(record.tools) for record in managed.predictions)
    assert warmed == asked
