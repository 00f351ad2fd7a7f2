"""`ls`, `ps`, `load` and `unload`: what they list, find, load and unload, and what they print where."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmstudio_integrations.cli._load import gpu_ratio
from lmstudio_integrations.cli._model_names import find_model
from lmstudio_integrations.cli._tables import time_to_live
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.models import LlmInfo, LlmInstanceInfo
from tests.cli.terminal import TIMEOUT, in_pipe, interrupt, needs_pty, on_terminal, started
from tests.gate import AT_THE_GATE, Gate

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
SMALL, LARGE, EMBEDDER = "vendor/small", "vendor/large", "vendor/embedder"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with two language models and an embedding model; the load of `stuck` never ends."""
    entries = [
        ModelEntry(key=SMALL, size_bytes=2_500_000, params="3M", architecture="tiny", max_context_length=8192),
        ModelEntry(key=LARGE, size_bytes=4_000_000_000, params="7B"),
        ModelEntry(key=EMBEDDER, kind="embedding", size_bytes=90_000),
        ModelEntry(key="stuck", rules=({"when": {"load": True}, "then": [AT_THE_GATE]},)),
    ]
    with Emulator(entries, engines=Gate().engines()) as emulator:
        yield emulator


@pytest.fixture
def command(server: Emulator, run: Run, capsys: Capture) -> Callable[..., tuple[int | str | None, str, str]]:
    """Run a command on the server; return its exit status or error, and what it printed on stdout and stderr."""

    def run_it(*arguments: str) -> tuple[int | str | None, str, str]:
        status = run(*arguments, "--host", server.address)
        return status, *capsys.readouterr()

    return run_it


Command = Callable[..., tuple[int | str | None, str, str]]


def cells(line: str) -> list[str]:
    return line.split()


# ls -----------------------------------------------------------------------------------------------------------------


def test_downloaded_models_are_listed_by_kind(server: Emulator, command: Command) -> None:
    server.load(SMALL)
    status, out, err = command("ls")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert cells(lines[0]) == ["LLM", "PARAMS", "ARCH", "SIZE"]
    assert cells(lines[3]) == [SMALL, "3M", "tiny", "2.50", "MB", "✓", "LOADED"]
    assert cells(lines[2]) == [LARGE, "7B", "scripted", "4.00", "GB"]
    assert cells(lines[4]) == ["EMBEDDING", "PARAMS", "ARCH", "SIZE"]
    assert cells(lines[5]) == [EMBEDDER, "scripted", "90.00", "kB"]


def test_two_instances_of_a_model_are_counted(server: Emulator, command: Command) -> None:
    server.load(SMALL)
    server.load(SMALL, identifier="again")
    assert "LOADED (2)" in command("ls")[1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--llm"], {SMALL, LARGE, "stuck"}),
        (["--embedding"], {EMBEDDER}),
        ([], {SMALL, LARGE, "stuck", EMBEDDER}),
        (["--llm", "--embedding"], {SMALL, LARGE, "stuck", EMBEDDER}),
    ],
)
def test_only_models_of_the_requested_kind_are_listed(command: Command, flags: list[str], expected: set[str]) -> None:
    status, out, err = command("ls", "--json", *flags)
    assert (status, err) == (0, "")
    assert {info["modelKey"] for info in json.loads(out)} == expected


def test_an_empty_list_is_a_note_and_no_error(run: Run, capsys: Capture) -> None:
    with Emulator([]) as empty:
        assert run("ls", "--host", empty.address) == 0
        listed = capsys.readouterr()
        assert run("ls", "--json", "--host", empty.address) == 0
    assert listed.out == ""
    assert "`lmsi get MODEL` downloads one" in listed.err
    assert json.loads(capsys.readouterr().out) == []


# ps -----------------------------------------------------------------------------------------------------------------


def test_loaded_models_are_listed_with_their_context_and_ttl(server: Emulator, command: Command) -> None:
    server.load(SMALL, identifier="mine")
    server.load(EMBEDDER, ttl=600)
    status, out, err = command("ps")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert cells(lines[0]) == ["IDENTIFIER", "MODEL", "STATUS", "SIZE", "CONTEXT", "TTL"]
    assert cells(lines[1])[:6] == ["mine", SMALL, "IDLE", "2.50", "MB", "4096"]
    assert cells(lines[2])[:2] == [EMBEDDER, EMBEDDER]
    assert lines[2].rstrip().endswith("/ 10m")


def test_loaded_models_are_printed_as_json(server: Emulator, command: Command) -> None:
    server.load(SMALL, identifier="mine")
    (info,) = json.loads(command("ps", "--json")[1])
    assert (info["identifier"], info["modelKey"], info["contextLength"]) == ("mine", SMALL, 4096)


def test_that_nothing_is_loaded_is_a_note(command: Command) -> None:
    assert command("ps") == (0, "", "No model is loaded; `lmsi load MODEL` loads one.\n")
    assert json.loads(command("ps", "--json")[1]) == []


@pytest.mark.parametrize(
    ("ttl", "used", "expected"),
    [
        (None, None, ""),
        (600_000, None, "10m / 10m"),
        (600_000, 1_000_000, "8m 20s / 10m"),
        (600_000, 2_000_000, "10m / 10m"),
        (600_000, 0, "0s / 10m"),
    ],
)
def test_the_remaining_time_is_within_the_ttl(ttl: int | None, used: int | None, expected: str) -> None:
    info = LlmInstanceInfo(
        **downloaded(SMALL).model_dump(),
        identifier=SMALL,
        instance_reference="r",
        context_length=1,
        ttl_ms=ttl,
        last_used_time=used,
    )
    assert time_to_live(info, now=1100.0) == expected


# load ---------------------------------------------------------------------------------------------------------------


def test_a_model_is_loaded_just_in_time_and_its_identifier_printed(server: Emulator, command: Command) -> None:
    status, out, err = command("load", SMALL)
    assert (status, out) == (0, f"{SMALL}\n")
    assert err.startswith(f"{SMALL} is loaded (2.50 MB")
    assert [load.mode for load in server.loads] == ["just_in_time"]
    assert [info.ttl_ms for info in server.loaded()] == [3_600_000]


def test_a_part_of_the_name_loads_an_embedding_model_as_well(server: Emulator, command: Command) -> None:
    assert command("load", "EMBED")[1] == f"{EMBEDDER}\n"
    assert [info.type for info in server.loaded()] == ["embedding"]


def test_the_settings_of_a_load_reach_the_server(server: Emulator, command: Command) -> None:
    assert command("load", SMALL, "--ttl", "60", "-c", "2048", "--gpu", "max")[0] == 0
    (info,) = server.loaded()
    assert (info.ttl_ms, info.context_length) == (60_000, 2048)
    assert server.loads[0].config == {"contextLength": 2048, "gpu": {"ratio": 1.0}}


def test_an_explicit_load_has_no_end_unless_it_has_a_ttl(server: Emulator, command: Command) -> None:
    command("load", SMALL, "--explicit")
    command("load", LARGE, "--explicit", "--ttl", "9")
    assert [load.mode for load in server.loads] == ["explicit", "explicit"]
    assert [info.ttl_ms for info in server.loaded()] == [None, 9_000]


def test_an_identifier_loads_another_instance(server: Emulator, command: Command) -> None:
    command("load", SMALL)
    assert command("load", SMALL, "--identifier", "mine")[1] == "mine\n"
    assert [info.identifier for info in server.loaded()] == [SMALL, "mine"]
    status, out, _ = command("load", SMALL, "--identifier", "mine")
    assert "already exists" in str(status)
    assert out == ""


def test_a_loaded_model_with_other_settings_is_a_warning(server: Emulator, command: Command) -> None:
    server.load(SMALL)
    status, out, err = command("load", SMALL, "-c", "2048")
    assert (status, out) == (0, f"{SMALL}\n")
    assert "has other settings than requested: context length 4096 instead of 2048" in err
    assert f"lmsi unload {SMALL}" in err
    assert len(server.loads) == 1


def test_a_context_beyond_the_maximum_is_a_warning(command: Command) -> None:
    status, _, err = command("load", SMALL, "-c", "100000")
    assert status == 0
    assert "context length 8192 instead of 100000; its longest context length is 8192" in err


def test_a_loaded_model_is_printed_as_json(command: Command) -> None:
    assert json.loads(command("load", SMALL, "--json")[1])["identifier"] == SMALL


def test_the_memory_is_estimated_without_a_load(server: Emulator, command: Command) -> None:
    status, out, _ = command("load", SMALL, "--estimate-only")
    assert status == 0
    assert "Total memory: " in out
    assert "passesGuardrails" in json.loads(command("load", SMALL, "--estimate-only", "--json")[1])
    assert not server.loads


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vendor"], f"'vendor' matches 3 models; name one of them: {SMALL}, {LARGE}, {EMBEDDER}"),
        (["smal", "--exact"], f"no downloaded model matches 'smal'; did you mean '{SMALL}'?"),
        (["zzz"], "no downloaded model matches 'zzz'; `lmsi ls` lists them, and `lmsi get zzz` downloads one"),
        ([], f"name a model: {SMALL}, {LARGE}, {EMBEDDER}, stuck"),
    ],
)
def test_a_name_that_means_no_single_model_is_an_error(command: Command, arguments: list[str], expected: str) -> None:
    assert command("load", *arguments) == (f"Error: {expected}", "", "")


def test_the_first_of_several_models_is_loaded_on_request(command: Command) -> None:
    assert command("load", "vendor", "--yes")[1] == f"{SMALL}\n"


@pytest.mark.parametrize("given", ["2", "-0.1", "most", "nan"])
def test_an_invalid_share_on_the_gpu_is_wrong_usage(server: Emulator, command: Command, given: str) -> None:
    status, _, err = command("load", SMALL, f"--gpu={given}")
    assert status == 2
    assert "is not off, max, or a number from 0 to 1" in err
    assert not server.loads


def test_the_share_on_the_gpu_has_names() -> None:
    assert [gpu_ratio(each) for each in ("off", "Max", "0.5")] == [0.0, 1.0, 0.5]


def test_an_interrupt_cancels_the_load(server: Emulator) -> None:
    with started("load", "stuck", "--host", server.address) as process:
        server.wait_for(lambda: bool(server.loads), timeout=TIMEOUT)
        assert interrupt(process) == (130, "", "")
    server.wait_for(lambda: server.loads[0].state == "cancelled")


@needs_pty
def test_a_load_on_a_terminal_has_a_bar(server: Emulator) -> None:
    with on_terminal("load", SMALL, "--host", server.address) as terminal:
        assert terminal.wait() == 0
    assert f"Loading {SMALL}" in terminal.text
    assert "100%" in terminal.text


@needs_pty
def test_without_a_name_the_user_picks_a_model_to_load(server: Emulator) -> None:
    with on_terminal("load", "--host", server.address) as terminal:
        terminal.wait_for("Model [1]: ")
        terminal.type("2\n")
        assert terminal.wait() == 0
    assert [info.model_key for info in server.loaded()] == [LARGE]


# unload -------------------------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_by_its_identifier(server: Emulator, command: Command) -> None:
    server.load(SMALL, identifier="mine")
    server.load(EMBEDDER)
    assert command("unload", EMBEDDER) == (0, "", f"Unloaded {EMBEDDER}.\n")
    assert [info.identifier for info in server.loaded()] == ["mine"]


def test_the_only_instance_is_unloaded_by_its_key_or_without_a_name(server: Emulator, command: Command) -> None:
    for name in ([SMALL], []):
        server.load(SMALL, identifier="mine")
        assert command("unload", *name) == (0, "", "Unloaded mine.\n")
    assert server.loaded() == []


def test_all_models_are_unloaded(server: Emulator, command: Command) -> None:
    server.load(SMALL)
    server.load(EMBEDDER)
    assert command("unload", "--all")[0] == 0
    assert server.loaded() == []
    assert command("unload", "-a") == (0, "", "No model is loaded.\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one "], "no loaded model has the identifier 'one '; did you mean 'one'?"),
        (["zzz"], "no loaded model has the identifier 'zzz'; loaded are one, two"),
        ([SMALL], f"'{SMALL}' is loaded 2 times; name an identifier: one, two"),
        ([], "several models are loaded; name one, or use --all: one, two"),
    ],
)
def test_an_unclear_identifier_unloads_nothing(
    server: Emulator, command: Command, arguments: list[str], expected: str
) -> None:
    server.load(SMALL, identifier="one")
    server.load(SMALL, identifier="two")
    assert command("unload", *arguments) == (f"Error: {expected}", "", "")
    assert len(server.loaded()) == 2


def test_without_a_loaded_model_nothing_can_be_unloaded(command: Command) -> None:
    assert command("unload") == ("Error: no model is loaded", "", "")


def test_an_identifier_and_all_exclude_each_other(server: Emulator, command: Command) -> None:
    server.load(SMALL)
    assert command("unload", SMALL, "--all")[0] == 2
    assert len(server.loaded()) == 1


@needs_pty
def test_the_user_picks_one_of_several_models_to_unload(server: Emulator) -> None:
    server.load(SMALL, identifier="one")
    server.load(SMALL, identifier="two")
    with on_terminal("unload", "--host", server.address) as terminal:
        terminal.wait_for("Unload [1]: ")
        terminal.type("2\n")
        assert terminal.wait() == 0
    assert [info.identifier for info in server.loaded()] == ["one"]


# In a pipe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("ls",), ("ps",), ("load", SMALL), ("unload", LARGE)])
def test_a_pipe_contains_no_control_codes(server: Emulator, arguments: tuple[str, ...]) -> None:
    server.load(LARGE)
    done = in_pipe(*arguments, "--host", server.address)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("ls",), ("ps", "--json"), ("load", LARGE), ("chat", LARGE, "-p", "Hi")])
def test_a_closed_pipe_ends_a_command_silently(server: Emulator, arguments: tuple[str, ...]) -> None:
    server.load(LARGE)
    with started(*arguments, "--host", server.address) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=TIMEOUT)
    assert "rror" not in err
    assert "Traceback" not in err


# Names --------------------------------------------------------------------------------------------------------------


def downloaded(key: str, **details: Any) -> LlmInfo:
    members: dict[str, Any] = {"format": "gguf", "display_name": key, "path": f"{key}/file.gguf", "size_bytes": 0}
    return LlmInfo(type="llm", model_key=key, max_context_length=1, **(members | details))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("a/model", "a/model"),
        ("A/MODEL", "a/model"),
        ("a/model/FILE.gguf", "a/model/file.gguf"),
        ("a/model@Q4", "a/model@q4"),
        ("Nice", "a/model"),
        ("other-long", "b/other-long"),
    ],
)
def test_a_model_has_several_names(typed: str, name: str) -> None:
    models = [
        downloaded("b/other-long"),
        downloaded("a/model", variants=["a/model@q4", "a/model@q8"], display_name="Nice Name"),
        downloaded("b/other"),
    ]
    assert find_model(typed, models).name == name


def test_a_full_name_is_found_although_others_contain_it() -> None:
    models = [downloaded("model-long"), downloaded("model")]
    assert find_model("model", models).info.model_key == "model"


def test_an_error_lists_ten_models_at_most() -> None:
    models = [downloaded(f"model-{number}") for number in range(12)]
    with pytest.raises(LMStudioValueError, match=r"model-9 and 2 more$"):
        find_model("model", models)


def test_without_downloaded_models_the_error_names_how_to_get_one() -> None:
    with pytest.raises(LMStudioValueError, match="none is downloaded; `lmsi get some` downloads one"):
        find_model("some", [])
