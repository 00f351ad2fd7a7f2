"""Documents in the emulator: their texts, and what a search finds in them."""

import threading
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.server.handlers import documents as handlers
from lmstudio_integrations.emulator.server.handlers.documents import RetrievalConfig, chunk, cosine
from tests.emulator.bare_client import TIMEOUT, Wire, wire
from tests.emulator.server.handlers.models import TEXT
from tests.emulator.server.handlers.uploading import encoded, upload


def test_a_document_becomes_text(files: Wire) -> None:
    identifier = upload(files, "a.md", encoded("\ufeff# Title"))["identifier"]
    registry = files.result("getDocumentParsingLibrary", {"fileIdentifier": identifier})
    packets = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {"parserId": registry}})
    assert packets == [
        {"type": "parserLoaded", "parser": registry},
        {"type": "progress", "progress": 1},
        {"type": "result", "content": "# Title", "parser": registry},
    ]
    settings = {"parserId": {"library": "other", "version": "1"}}
    (packet,) = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": settings})
    assert "other" in packet["error"]["title"]


@pytest.mark.parametrize(("name", "data"), [("a.pdf", b"x"), ("a.txt", b"\xff\xfe\xfd")])
def test_a_document_that_cannot_be_parsed_is_rejected(files: Wire, name: str, data: bytes) -> None:
    identifier = upload(files, name, encoded(data))["identifier"]
    assert files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {}})[-1]["type"] == "error"
    assert files.rpc_error("getDocumentParsingLibrary", {"fileIdentifier": identifier})


def searching(files: Wire, query: str, **fields: Any) -> dict[str, Any]:
    identifiers = [
        upload(files, "a.md", encoded(TEXT))["identifier"],
        upload(files, "b.md", encoded("Blue!"))["identifier"],
    ]
    config = {"fields": [{"key": f"retrieval.{name}", "value": value} for name, value in fields.items()]}
    return {"query": query, "fileIdentifiers": identifiers, "config": config}


def test_retrieval_finds_similar_chunks(files: Wire) -> None:
    method = {"type": "recursive-v1", "chunkSize": 20, "chunkOverlap": 0}
    packets = files.stream("retrieve", searching(files, "green Grass", chunkingMethod=method, limit=2))
    kinds = [packet["type"] for packet in packets]
    assert packets[0] == {"type": "onFileProcessList", "indices": [0, 1]}
    assert kinds.count("onFileProcessingStart") == kinds.count("onFileProcessingEnd") == 2
    steps = [packet["step"] for packet in packets if packet["type"] == "onFileProcessingStepEnd"]
    assert steps == ["loading", "chunking", "embedding"] * 2
    assert kinds[-3:] == ["onSearchingStart", "onSearchingEnd", "result"]
    entries = packets[-1]["result"]["entries"]
    assert len(entries) == 2
    assert entries[0]["content"] == "Grass is green."
    assert (entries[0]["sourceIndex"], entries[0]["lineNumber"]) == (0, 3)
    assert entries[0]["score"] > entries[1]["score"]


def test_a_retrieval_requires_a_loaded_embedding_model(files: Wire) -> None:
    packets = files.stream("retrieve", searching(files, "sky", embeddingModel="nothing"))
    assert packets[-1]["error"]["displayData"]["code"] == "generic.noModelMatchingQuery"


def test_a_retrieval_can_be_cancelled_between_two_chunks() -> None:
    reached, go_on, waits = threading.Event(), threading.Event(), list[float]()

    async def keep_the_server_waiting(seconds: float) -> None:
        waits.extend([seconds] if seconds else [])
        if len(waits) == 2:
            reached.set()
            go_on.wait(TIMEOUT)

    entry = ModelEntry(key="v", kind="embedding", rules=({"then": [{"wait": 1.0}]},))
    engines = {"scripted": ScriptedEngine(keep_the_server_waiting)}
    with Emulator([entry], load=["v"], engines=engines) as other, wire(other, "files") as files:
        identifier = upload(files, "a.txt", encoded("word " * 20_000))["identifier"]
        channel = files.open("retrieve", {"query": "x", "fileIdentifiers": [identifier], "config": {"fields": []}})
        assert reached.wait(TIMEOUT)
        files.send(channel, {"type": "stop"})
        go_on.set()
        assert "cancelled" in list(files.packets(channel))[-1]["error"]["title"]
    assert len(waits) < 100, "of more than 200 chunks"


@pytest.mark.parametrize("step", ["chunk", "rank"])
def test_the_long_steps_of_a_retrieval_do_not_block_others(
    me: Wire, files: Wire, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached, go_on, done = threading.Event(), threading.Event(), getattr(handlers, step)

    def slow(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(TIMEOUT)
        return done(*arguments)

    monkeypatch.setattr(handlers, step, slow)
    channel = files.open("retrieve", searching(files, "sky"))
    assert reached.wait(TIMEOUT)
    assert len(me.result("listLoaded")) == 2
    go_on.set()
    assert list(files.packets(channel))[-1]["type"] == "result"


# Splitting


def test_texts_are_split_at_paragraphs_lines_and_words() -> None:
    text = "\nOne one\n\nTwo two\nThree three three\n\n"
    chunks = chunk(text, 7, RetrievalConfig(chunk_size=12, overlap=0))
    assert [(each.content, each.lines) for each in chunks] == [
        ("One one", (2, 2)),
        ("Two two", (4, 4)),
        ("Three three", (5, 5)),
        ("three", (5, 5)),
    ]
    assert {each.source for each in chunks} == {7}
    assert chunk("  \n ", 0, RetrievalConfig()) == []


def test_chunks_overlap_but_a_large_overlap_does_not_make_one_of_every_character() -> None:
    small = chunk("abcdefgh", 0, RetrievalConfig(chunk_size=4, overlap=2))
    assert [each.content for each in small] == ["abcd", "cdef", "efgh"]
    chunks = chunk("x" * 1000, 0, RetrievalConfig(chunk_size=100, overlap=99))
    assert "".join(each.content[:25] for each in chunks[:-1]) + chunks[-1].content == "x" * 1000
    assert len(chunks) == 37


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"retrieval.limit": float("inf")}, RetrievalConfig()),
        ({"retrieval.limit": 3.0, "retrieval.embeddingModel": "v"}, RetrievalConfig(limit=3, model="v")),
        ({"retrieval.chunkingMethod": {"chunkSize": 10}}, RetrievalConfig(chunk_size=10, overlap=9)),
        ({"retrieval.chunkingMethod": {"chunkSize": 0, "chunkOverlap": -1}, "retrieval.limit": "x"}, RetrievalConfig()),
    ],
)
def test_invalid_retrieval_settings_have_defaults(fields: dict[str, object], config: RetrievalConfig) -> None:
    assert RetrievalConfig.read(fields) == config


def test_a_vector_of_zeros_has_no_similarity() -> None:
    assert cosine([0, 0], [1, 0]) == 0
    assert cosine([0, 2], [0, 1]) == 1
