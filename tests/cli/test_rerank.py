"""`rerank`: what it prints, in which order, of which texts, and by which model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import Piped

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
RERANKER, CHAT = "qwen3-reranker-0.6b", "chat"
RULES: tuple[Any, ...] = (
    {"when": {"last": "^fail"}, "then": [{"error": "It went wrong"}]},
    {"when": {"last": "^prose"}, "then": [{"text": "Well"}]},
    {"when": {"last": "ferry"}, "then": [{"relevance": 0.9}]},
    {"when": {"last": "boat"}, "then": [{"relevance": 0.5}]},
)
TEXTS = "It rains\n\n  \nthe boat\r\nprose\nthe ferry"
QUERY = "When does the ferry leave?"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with two models, of which none is loaded, and an embedding model."""
    models = [
        ModelEntry(key=RERANKER, rules=RULES, context_length=64),
        ModelEntry(key=CHAT, rules=RULES),
        ModelEntry(key="vectors", kind="embedding"),
    ]
    with Emulator(models) as running:
        yield running


@pytest.fixture
def rerank(run: Run, server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `rerank` on the server, in a folder with the texts."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(TEXTS, encoding="utf-8")
    return lambda *arguments: run("rerank", QUERY, *arguments, "--host", server.address)


ALL = "0.900  the ferry\n0.500  the boat\n0.010  It rains\n-      prose\n"


@pytest.mark.parametrize("model", [RERANKER, CHAT])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ALL),
        (("--top-n", "2"), "0.900  the ferry\n0.500  the boat\n"),
        (("-n", "9", "--threshold", "0.01"), "0.900  the ferry\n0.500  the boat\n0.010  It rains\n"),
        (("--threshold", "1"), ""),
        (("--instruction", "Is it about the ferry?"), ALL),
    ],
)
def test_the_texts_are_printed_with_their_scores_best_first(
    rerank: Run, capsys: Capture, model: str, options: tuple[str, ...], expected: str
) -> None:
    assert rerank("in.txt", "--model", model, *options) == 0
    assert capsys.readouterr() == (expected, "")


def test_json_has_the_index_of_the_row_and_the_whole_score(rerank: Run, capsys: Capture) -> None:
    assert rerank("in.txt", "--model", RERANKER, "--json") == 0
    best, *_, last = json.loads(capsys.readouterr().out)
    assert best == {"index": 5, "score": pytest.approx(0.9), "text": "the ferry"}
    assert last == {"index": 4, "score": None, "text": "prose"}


def test_the_texts_may_be_those_of_a_field(rerank: Run, capsys: Capture) -> None:
    rows = [{"body": "the boat", "": 1, "embedding": 1}, {"body": None}, {"body": "the ferry"}]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert rerank("in.jsonl", "--field", "body", "--model", RERANKER) == 0
    assert capsys.readouterr().out == "0.900  the ferry\n0.500  the boat\n"


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_an_empty_input_has_no_result(rerank: Run, capsys: Capture, options: tuple[str, ...]) -> None:
    Path("empty.txt").write_text("\n", encoding="utf-8")
    assert rerank("empty.txt", "--model", RERANKER, *options) == 0
    assert capsys.readouterr().out == ("[]\n" if options else "")


def test_the_texts_of_a_pipe_are_reranked(server: Emulator, piped: Piped) -> None:
    assert piped("rerank", QUERY, "--model", CHAT, "--host", server.address, stdin=TEXTS) == (0, ALL, "")


@pytest.mark.parametrize("loaded", [[RERANKER, CHAT], [CHAT]], ids=["reranker", "chat model"])
def test_a_loaded_reranker_is_used_else_the_model_that_was_used_last(
    rerank: Run, server: Emulator, loaded: list[str]
) -> None:
    for key in loaded:
        server.load(key)
    assert rerank("in.txt") == 0
    assert {each.model for each in server.predictions} == {loaded[0]}


def test_a_text_that_is_too_long_is_noted(rerank: Run, capsys: Capture) -> None:
    Path("in.txt").write_text("the ferry " * 100, encoding="utf-8")
    assert rerank("in.txt", "--model", RERANKER) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("0.900  the ferry the ferry")
    assert shown.err == "1 text too long for the model; the score is that of the beginning.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.txt",), f"name a language model: {CHAT}, {RERANKER}"),
        (("in.txt", "--model", "vectors"), "'vectors' is an embedding model"),
        (("nothing.txt",), "cannot read 'nothing.txt': there is no such file"),
        (("in.csv",), "the format of 'in.csv' is not known"),
        (("fail.txt", "--model", CHAT), "It went wrong"),
        (("in.txt", "--model", CHAT, "--instruction", " "), "instruction is empty"),
    ],
)
def test_an_error_is_one_message(rerank: Run, capsys: Capture, arguments: tuple[str, ...], message: str) -> None:
    Path("fail.txt").write_text("the ferry\nfail\n", encoding="utf-8")
    found = rerank(*arguments)
    assert isinstance(found, str)
    assert found.startswith("Error: ")
    assert message in found
    assert not capsys.readouterr().out
