"""Linked devices in the commands: how models on them are listed, chosen, loaded and unloaded."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmstudio_integrations import Client
from lmstudio_integrations.cli import _loaded_models
from lmstudio_integrations.cli._loaded_models import find_downloaded
from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import Command, Piped, cells

LINKED = {
    "memory_gib": 8,
    "model": [
        {"key": "small", "memory_gib": 3, "kib_per_token": 1024},
        {"key": "small-2", "memory_gib": 5},
        {"key": "vectors", "kind": "embedding"},
    ],
    "device": [
        {"name": "box", "identifier": "id-box", "memory_gib": 16, "models": ["small", "vectors"], "preferred": True},
        {"name": "away", "identifier": "id-away", "connected": False},
    ],
}


@pytest.fixture
def linked() -> Iterator[Emulator]:
    """A server that prefers its linked device; both have instances `x`, of other context lengths, and `vectors`."""
    with Emulator(catalog=LINKED) as server, Client(server.address) as client:
        for device, length in (("box", 2048), ("local", 1024)):
            client.llm.load_new_instance("small", "x", device=device, config={"context_length": length})
            client.embedding.load_new_instance("vectors", device=device)
        yield server


@pytest.fixture
def on_linked(linked: Emulator, run: Callable[..., int | str | None], capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command on the linked server."""

    def run_it(*arguments: str) -> tuple[int | str | None, str, str]:
        status = run(*arguments, "--host", linked.address)
        return status, *capsys.readouterr()

    return run_it


def placed(server: Emulator) -> list[tuple[str, str | None]]:
    return sorted((info.identifier, info.device_identifier or "local") for info in server.loaded())


ALL = [("vectors", "id-box"), ("vectors", "local"), ("x", "id-box"), ("x", "local")]


SIZE = "1.00 MB"
"""The size of every scripted model."""


def rows_of(table: str) -> list[list[str]]:
    """Return the words of a table, line by line; a size is one."""
    return [cells(line.replace(SIZE, "SIZE")) for line in table.splitlines()]


def test_models_on_linked_devices_are_listed_with_their_device(linked: Emulator, on_linked: Command) -> None:
    linked.unload("x")  # on the device that the server prefers
    rows = rows_of(on_linked("ls", "--llm")[1])
    assert [[row[0], *row[4:]] for row in rows] == [
        ["LLM", "DEVICE"],
        ["small", "local", "✓", "LOADED"],
        ["small", "box"],
        ["small-2", "local"],
    ]
    assert [info.get("deviceIdentifier") for info in json.loads(on_linked("ls", "--json", "--llm")[1])] == [
        None,
        "id-box",
        None,
    ]


def test_two_instances_with_one_identifier_are_not_mixed_up(on_linked: Command) -> None:
    rows = rows_of(on_linked("ps")[1])
    assert [(*row[:3], row[5]) for row in rows] == [
        ("IDENTIFIER", "DEVICE", "MODEL", "CONTEXT"),
        ("vectors", "box", "vectors", "4096"),
        ("vectors", "local", "vectors", "4096"),
        ("x", "box", "small", "2048"),
        ("x", "local", "small", "1024"),
    ]
    listed = json.loads(on_linked("ps", "--json")[1])
    assert sorted(
        (info["deviceIdentifier"] or "", info["contextLength"]) for info in listed if info["type"] == "llm"
    ) == [
        ("", 1024),
        ("id-box", 2048),
    ]


def test_without_models_on_linked_devices_none_is_looked_up(managed: Emulator, command: Command) -> None:
    managed.load("vendor/small")
    for arguments in (["ls"], ["ps"], ["unload"]):
        status, out, err = command(*arguments)
        assert (status, "DEVICE" in out, " on " in err) == (0, False, False)
    assert "repository" not in {connection.namespace for connection in managed.connections}


@pytest.mark.parametrize(
    ("arguments", "output", "gone"),
    [
        (["x", "--device", "local"], "Unloaded x on local.\n", ["x local"]),
        (["x", "--device", "box"], "Unloaded x on box.\n", ["x id-box"]),
        (["small", "--device", "id-box"], "Unloaded x on box.\n", ["x id-box"]),
        (
            ["--all", "--device", "box"],
            "Unloaded vectors on box.\nUnloaded x on box.\n",
            ["vectors id-box", "x id-box"],
        ),
        (["--all"], "", ["vectors id-box", "vectors local", "x id-box", "x local"]),
        (["x"], "Error: 'x' is loaded 2 times; name its --device: x on box, x on local", []),
        ([], "Error: several models are loaded; name one, or use --all: vectors on box, vectors on local, x on", []),
        (
            ["x", "--device", "away"],
            "Error: the device 'away' is not connected; connected: 'local', 'box'",
            [],
        ),
    ],
)
def test_an_instance_is_unloaded_on_its_device(
    linked: Emulator, on_linked: Command, arguments: list[str], output: str, gone: list[str]
) -> None:
    status, _, err = on_linked("unload", *arguments)
    assert output in f"{status}{err}"
    assert [each for each in ALL if each not in placed(linked)] == [tuple(each.split()) for each in gone]


@pytest.mark.parametrize(
    ("arguments", "expected", "new"),
    [
        (["small", "--identifier", "new", "-c", "256", "--device", "local"], "Loaded new", ("new", "local")),
        (["small", "--identifier", "new", "-c", "256"], "Loaded new", ("new", "id-box")),
        (["small-", "--device", "emulator", "--fit"], "It evicted x (--fit), as they do not fit", ("small-2", "local")),
        (["small", "--device", "box"], "x (small) is already loaded", None),
        (["small-2", "--device", "box"], "no downloaded model matches 'small-2'; did you mean 'small'?", None),
    ],
)
def test_a_model_is_loaded_on_the_device(
    linked: Emulator, on_linked: Command, arguments: list[str], expected: str, new: tuple[str, str] | None
) -> None:
    status, _, err = on_linked("load", *arguments)
    assert expected in f"{status}{err}"
    assert [each for each in placed(linked) if each not in ALL] == ([new] if new else [])


@pytest.mark.parametrize(("flags", "device"), [(["--device", "local"], None), ([], "id-box")])
def test_a_prompt_is_processed_on_the_device(
    linked: Emulator, on_linked: Command, tmp_path: Path, flags: list[str], device: str | None
) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Be brief.", encoding="utf-8")
    assert on_linked("load", "small", "--warm", str(path), *flags)[0] == 0
    assert [info.device_identifier for info in linked.loaded() if info.last_used_time] == [device]


@pytest.mark.parametrize(("device", "permitted"), [("local", "no"), ("box", "yes")])
def test_memory_is_estimated_on_the_device(on_linked: Command, device: str, permitted: str) -> None:
    assert (
        f"Permitted:    {permitted}"
        in on_linked("load", "small", "--estimate-only", "-c", "4096", "--device", device)[1]
    )


def test_an_instance_is_new_even_if_another_device_has_its_identifier(linked: Emulator, on_linked: Command) -> None:
    linked.unload("x")
    assert on_linked("load", "small", "--identifier", "x", "--device", "box")[2].startswith("Loaded x (")


def test_a_model_is_offered_once_even_if_several_devices_have_it(
    linked: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[str] = []
    monkeypatch.setattr(_loaded_models, "has_terminal", lambda: True)

    def pick(_question: str, choices: list[str]) -> int:
        offered.extend(choices)
        return 0

    monkeypatch.setattr(_loaded_models, "pick", pick)
    with Client(linked.address) as client:
        assert find_downloaded(client, "vec").name == "vectors"
        assert find_downloaded(client, None).name == "small"
    assert offered == [f"{key} ({SIZE})" for key in ("small", "small-2", "vectors")]


@pytest.mark.parametrize("device", ["local", "box"])
@pytest.mark.parametrize(
    "arguments",
    [("chat", "small", "-p", "Hi"), ("chat", "-p", "Hi"), ("rerank", "Hi", "TEXTS"), ("embed", "TEXTS", "OUT")],
    ids=" ".join,
)
def test_models_are_used_on_the_device_that_is_named(
    linked: Emulator, piped: Piped, tmp_path: Path, arguments: tuple[str, ...], device: str
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n", encoding="utf-8")
    paths = {"TEXTS": str(texts), "OUT": str(tmp_path / "vectors.jsonl")}
    unused = {info.instance_reference for info in linked.loaded() if info.last_used_time is None}
    options = [] if arguments[0] != "embed" else ["--model", "vectors", "-o", paths["OUT"]]
    given = [paths.get(each, each) for each in arguments if each != "OUT"]
    assert piped(*given, *options, "--device", device, "--host", linked.address)[0] == 0
    used = [info for info in linked.loaded() if info.last_used_time and info.instance_reference in unused]
    assert {info.device_identifier for info in used} == {None if device == "local" else "id-box"}
