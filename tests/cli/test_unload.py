"""`unload`: which models it unloads."""

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import EMBEDDER, SMALL, Command
from tests.cli.terminal import needs_pty, on_terminal


def test_a_model_is_unloaded_by_its_identifier(managed: Emulator, command: Command) -> None:
    managed.load(SMALL, identifier="mine")
    managed.load(EMBEDDER)
    assert command("unload", EMBEDDER) == (0, "", f"Unloaded {EMBEDDER}.\n")
    assert [info.identifier for info in managed.loaded()] == ["mine"]


def test_the_only_instance_is_unloaded_by_its_key_or_without_a_name(managed: Emulator, command: Command) -> None:
    for name in ([SMALL], []):
        managed.load(SMALL, identifier="mine")
        assert command("unload", *name) == (0, "", "Unloaded mine.\n")
    assert managed.loaded() == []


def test_all_models_are_unloaded(managed: Emulator, command: Command) -> None:
    managed.load(SMALL)
    managed.load(EMBEDDER)
    assert command("unload", "--all")[0] == 0
    assert managed.loaded() == []
    assert command("unload", "-a") == (0, "", "No model is loaded.\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one "], "no loaded model has the identifier 'one '; did you mean 'one'?"),
        (["wo"], "no loaded model has the identifier 'wo'; did you mean 'two'?"),
        (["zzz"], "no loaded model has the identifier 'zzz'; loaded are one, two"),
        ([SMALL], f"'{SMALL}' is loaded 2 times; name an identifier: one, two"),
        ([], "several models are loaded; name one, or use --all: one, two"),
    ],
)
def test_an_unclear_identifier_unloads_nothing(
    managed: Emulator, command: Command, arguments: list[str], expected: str
) -> None:
    managed.load(SMALL, identifier="one")
    managed.load(SMALL, identifier="two")
    assert command("unload", *arguments) == (f"Error: {expected}", "", "")
    assert len(managed.loaded()) == 2


def test_without_a_loaded_model_nothing_can_be_unloaded(command: Command) -> None:
    assert command("unload") == ("Error: no model is loaded", "", "")


def test_an_identifier_and_all_exclude_each_other(managed: Emulator, command: Command) -> None:
    managed.load(SMALL)
    assert command("unload", SMALL, "--all")[0] == 2
    assert len(managed.loaded()) == 1


@pytest.mark.slow
@needs_pty
def test_the_user_picks_one_of_several_models_to_unload(managed: Emulator) -> None:
    managed.load(SMALL, identifier="one")
    managed.load(SMALL, identifier="two")
    with on_terminal("unload", "--host", managed.address) as terminal:
        terminal.wait_for("Unload [1]: ")
        terminal.type("2\n")
        assert terminal.wait() == 0
    assert [info.identifier for info in managed.loaded()] == ["one"]
