"""`ls`: which downloaded models it lists, and how."""

import json

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli._common import downloaded_models
from lmstudio_integrations.cli._ls import model_lines
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import EMBEDDER, LARGE, SMALL, Piped, Run

LINKED = {
    "model": [{"key": "small"}, {"key": "small-2"}, {"key": "vectors", "kind": "embedding"}],
    "device": [{"name": "box", "identifier": "id-box", "models": ["small", "vectors"]}],
}
Capture = pytest.CaptureFixture[str]


def test_downloaded_models_are_listed_by_kind(managed: Emulator, command: Piped) -> None:
    managed.load(SMALL)
    status, out, err = command("ls")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["LLM", "PARAMS", "ARCH", "SIZE", "ABILITIES"]
    assert lines[2].split() == [SMALL, "3M", "tiny", "2.50", "MB", "tools,", "vision", "✓", "LOADED"]
    assert lines[1].split() == [LARGE, "7B", "scripted", "4.00", "GB", "tools"]
    assert lines[3].split() == ["EMBEDDING", "ARCH", "SIZE"]
    assert lines[4].split() == [EMBEDDER, "scripted", "90.00", "kB"]
    assert "repository" not in {connection.namespace for connection in managed.connections}, "no device is looked up"
    managed.load(SMALL, identifier="again")
    assert "LOADED (2)" in command("ls")[1]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, ["LLM", "PARAMS", "ARCH", "SIZE", "ABILITIES"]),
        (50, ["LLM", "PARAMS", "SIZE", "ABILITIES"]),
        (20, ["LLM"]),
    ],
)
def test_a_table_leaves_out_what_a_narrow_terminal_has_no_space_for(
    managed: Emulator, width: int, header: list[str]
) -> None:
    with lms.Client(managed.address) as client:
        lines = model_lines("LLM", downloaded_models(client, "llm"), [], {}, width)
    assert lines[0].split() == header
    assert max(map(len, lines)) <= width


def test_a_model_that_is_unloaded_meanwhile_is_not_shown_as_loaded(
    managed: Emulator, command: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloaded(_: object) -> None:
        raise lms.LMStudioModelNotFoundError("it was unloaded")

    managed.load(SMALL)
    monkeypatch.setattr(lms.LLM, "get_info", unloaded)
    status, out, _ = command("ls")
    assert (status, SMALL in out, "LOADED" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--llm"], {SMALL, LARGE}),
        (["--embedding"], {EMBEDDER}),
        (["--llm", "--embedding"], {SMALL, LARGE, EMBEDDER}),
    ],
)
def test_only_models_of_the_requested_kind_are_listed(command: Piped, flags: list[str], expected: set[str]) -> None:
    status, out, err = command("ls", "--json", *flags)
    assert (status, err) == (0, "")
    assert {info["modelKey"] for info in json.loads(out)} == expected


@pytest.mark.leaf
def test_the_efforts_that_a_model_allows_are_in_its_info(run: Run, capsys: Capture) -> None:
    models = [
        ModelEntry(key="leveled", reasoning_options=("low", "medium"), reasoning_default="low"),
        ModelEntry(key="plain"),
    ]
    with Emulator(models) as server:
        assert run("ls", "--json", "--host", server.address) == 0
    leveled, plain = json.loads(capsys.readouterr().out)
    assert leveled["reasoning"] == {"allowed_options": ["low", "medium"], "default": "low"}
    assert "reasoning" not in plain


def test_an_empty_list_is_a_note_and_no_error(run: Run, capsys: Capture) -> None:
    with Emulator([]) as empty:
        assert run("ls", "--host", empty.address) == 0
        listed = capsys.readouterr()
        assert run("ls", "--json", "--host", empty.address) == 0
    assert listed.out == ""
    assert "`lms get` downloads one" in listed.err
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.leaf("devices")
def test_models_on_linked_devices_are_listed_with_their_device(run: Run, capsys: Capture) -> None:
    with Emulator(catalog=LINKED) as linked, lms.Client(linked.address) as client:
        client.llm.load_new_instance("small", device="local")
        assert run("ls", "--llm", "--host", linked.address) == 0
        lines = capsys.readouterr().out.splitlines()
        assert run("ls", "--json", "--llm", "--host", linked.address) == 0
    rows = [line.replace("1.00 MB", "SIZE").split() for line in lines]
    assert [[row[0], *row[4:]] for row in rows] == [
        ["LLM", "DEVICE"],
        ["small", "local", "✓", "LOADED"],
        ["small", "box"],
        ["small-2", "local"],
    ]
    listed = json.loads(capsys.readouterr().out)
    assert [info.get("deviceIdentifier") for info in listed] == [None, "id-box", None]
