"""Names of classes and files that recur in the package: each one is in a table, with the reason."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.structure.vocabulary import ROOT

PACKAGE = "lmstudio_integrations"

Repetitions = Mapping[str, tuple[set[str], str]]
"""By name: every place where it stands, and why it may stand in all of them."""

BOTH_FRAMEWORKS = "the same idea for another framework"

CLASSES: Repetitions = {
    "Socket": ({"client/transport/websocket", "emulator/sockets"}, "each end's class for the library's connection"),
}

FILES: Repetitions = {
    "_chunks": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "_errors": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "_messages": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "_settings": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "_structured": ({"client", "langchain", "llama_index"}, "structured output, and " + BOTH_FRAMEWORKS),
    "_tools": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "downloads": ({"client", "types"}, "downloads: the calls, and what they return"),
    "embeddings": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "engine": ({"emulator/engines/llama_cpp", "emulator/engines/scripted"}, "the same idea for another engine"),
    "errors": ({"", "emulator", "emulator/engines", "protocol"}, "the errors of each layer"),
    "files": ({"emulator/handlers", "types"}, "uploaded files: the objects, and the emulator's endpoints"),
    "llms": ({"langchain", "llama_index"}, BOTH_FRAMEWORKS),
    "session": ({"cli/_chat", "protocol"}, "a chat with a model, and the exchange over one socket"),
    "prediction": ({"emulator/handlers", "protocol"}, "predictions: the packets, and the emulator's endpoints"),
}


def _modules(package: Path) -> Iterator[Path]:
    return (path for path in sorted(package.rglob("*.py")) if path.stem not in {"__init__", "__main__"})


def class_places(package: Path) -> Iterator[tuple[str, str]]:
    """Yield each class of a package, with its module."""
    for path in _modules(package):
        module = path.relative_to(package).with_suffix("").as_posix()
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        yield from ((node.name, module) for node in nodes if isinstance(node, ast.ClassDef))


def file_places(package: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of a package, with its folder."""
    for path in _modules(package):
        folder = path.relative_to(package).parent.as_posix()
        yield path.stem, "" if folder == "." else folder


def differences(found: Iterable[tuple[str, str]], allowed: Repetitions) -> list[str]:
    """Return the names that recur in other places than the table has, which may also be places that are no more."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in found:
        places[name].append(place)
    recurring = {name: each for name, each in places.items() if len(each) > 1}
    expected = {name: sorted(each) for name, (each, _) in allowed.items()}
    return [
        f"{name}: found in {sorted(recurring.get(name, []))}, the table has {expected.get(name, [])}"
        for name in sorted({*recurring, *expected})
        if sorted(recurring.get(name, [])) != expected.get(name, [])
    ]


def test_a_class_name_recurs_only_with_a_reason() -> None:
    assert not differences(class_places(ROOT / PACKAGE), CLASSES)


def test_a_file_name_recurs_only_with_a_reason() -> None:
    assert not differences(file_places(ROOT / PACKAGE), FILES)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A package in which the class `Call` and the file `calls.py` recur."""
    for folder in ("", "one", "two"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
        (tmp_path / folder / f"calls{'' if folder else '_of_all'}.py").write_text("class Call: ...", encoding="utf-8")
    return tmp_path


def test_a_planted_repetition_is_found(planted: Path) -> None:
    assert differences(class_places(planted), {}) == [
        "Call: found in ['calls_of_all', 'one/calls', 'two/calls'], the table has []"
    ]
    assert differences(file_places(planted), {}) == ["calls: found in ['one', 'two'], the table has []"]


def test_a_repetition_in_the_table_is_allowed_in_its_places_only(planted: Path) -> None:
    assert not differences(file_places(planted), {"calls": ({"one", "two"}, "")})
    (planted / "calls.py").touch()
    assert differences(file_places(planted), {"calls": ({"one", "two"}, "")}) == [
        "calls: found in ['', 'one', 'two'], the table has ['one', 'two']"
    ]


def test_an_entry_that_nothing_needs_is_reported(planted: Path) -> None:
    allowed: Repetitions = {"calls": ({"one", "two"}, ""), "packets": ({"one", "two"}, "")}
    assert differences(file_places(planted), allowed) == ["packets: found in [], the table has ['one', 'two']"]
