"""The endpoints for uploads, documents and retrieval."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import ScriptedModel, engine
from lmstudio_integrations.emulator.server import retrieval
from tests.emulator.bare_client import TIMEOUT, Wire, prediction_request, wire
from tests.emulator.server.handlers.models import TEXT, VECTORS

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()


@pytest.fixture
def files(server: Emulator) -> Iterator[Wire]:
    """A socket of the same client for files."""
    with wire(server, "files") as opened:
        yield opened


def upload(files: Wire, name: str, content: str) -> dict[str, Any]:
    found: dict[str, Any] = files.result("uploadFileBase64", {"name": name, "contentBase64": content})
    return found


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    ("name", "data", "file_type"),
    [
        ("a.txt", b"\x89PNG\r\n\x1a\n", "image"),
        ("a", b"\xff\xd8\xff\xe0", "image"),
        ("a", b"RIFF1234WEBPVP8 ", "image"),
        ("cat.jpeg", b"?", "image"),
        ("a.txt", b"x", "text/plain"),
        ("a.MD", b"x", "text/plain"),
        ("a.pdf", b"x", "application/pdf"),
        ("a.docx", b"x", "application/word"),
        ("a.csv", b"x", "text/other"),
        ("a.bin", b"x", "unknown"),
        ("cat.gif", b"GIF89a", "unknown"),
        ("a", b"", "unknown"),
    ],
)
def test_the_type_of_a_file_is_guessed_by_content_then_by_name(
    files: Wire, name: str, data: bytes, file_type: str
) -> None:
    found = upload(files, name, encoded(data))
    assert (found["fileType"], found["sizeBytes"]) == (file_type, len(data))


def test_each_upload_has_an_identifier_of_its_own(files: Wire) -> None:
    names = [upload(files, "a.png", PNG)["identifier"] for _ in range(2)]
    assert names[0] != names[1]
    assert all(name.startswith("local:") and "/" not in name for name in names)


@pytest.mark.parametrize("content", ["!", "é"])
def test_invalid_base64_is_rejected(files: Wire, content: str) -> None:
    error = files.rpc_error("uploadFileBase64", {"name": "a", "contentBase64": content})
    assert "base64" in error["title"]


def image_request(model: str, identifier: str, file_type: str = "image") -> dict[str, Any]:
    requested = prediction_request(model, "What is this?")
    part = {"type": "file", "name": "a.png", "identifier": identifier, "sizeBytes": 1, "fileType": file_type}
    requested["history"]["messages"][0]["content"].append(part)
    return requested


def test_a_file_is_seen_on_all_sockets_of_its_client_and_no_others(server: Emulator, me: Wire, files: Wire) -> None:
    identifier = upload(files, "a.png", PNG)["identifier"]
    for name in (identifier, identifier.removeprefix("local:"), f"base64:{PNG}"):
        assert me.stream("predict", image_request("chat", name))[-1]["type"] == "success"
    with wire(server, client="guest:other") as other:
        error = other.stream("predict", image_request("chat", identifier))[-1]["error"]
        assert "Cannot find an uploaded file" in error["title"]


def test_an_upload_is_dropped_with_the_last_socket_of_its_client(server: Emulator) -> None:
    with wire(server, "files", client="guest:short") as files:
        identifier = upload(files, "a.png", PNG)["identifier"]
    server.wait_for(lambda: not server.connections)
    with wire(server, client="guest:short") as me:
        assert me.stream("predict", image_request("chat", identifier))[-1]["type"] == "error"


def test_a_model_without_vision_rejects_images(me: Wire, files: Wire) -> None:
    error = me.stream("predict", image_request("blind", upload(files, "a.png", PNG)["identifier"]))[-1]["error"]
    assert "does not support images" in error["title"]


@pytest.mark.parametrize(
    ("identifier", "file_type"),
    [("local:nowhere", "image"), ("base64:!", "image"), ("base64:é", "image"), ("local:x", "text/plain")],
)
def test_a_file_that_is_not_an_image_is_rejected(me: Wire, identifier: str, file_type: str) -> None:
    last = me.stream("predict", image_request("chat", identifier, file_type))[-1]
    assert "Internal" not in last["error"]["title"]


def test_a_document_becomes_text(files: Wire) -> None:
    identifier = upload(files, "a.md", encoded("\ufeff# Title"))["identifier"]
    registry = files.result("getDocumentParsingLibrary", {"fileIdentifier": identifier})
    packets = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {"parserId": registry}})
    assert packets == [
        {"type": "parserLoaded", "parser": registry},
        {"type": "progress", "progress": 1},
        {"type": "result", "content": "# Title", "parser": registry},
    ]


@pytest.mark.parametrize(("name", "data"), [("a.pdf", b"x"), ("a.png", b"x"), ("a.txt", b"\xff\xfe\xfd")])
def test_a_document_that_cannot_be_parsed_is_rejected(files: Wire, name: str, data: bytes) -> None:
    identifier = upload(files, name, encoded(data))["identifier"]
    assert files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": {}})[-1]["type"] == "error"
    assert files.rpc_error("getDocumentParsingLibrary", {"fileIdentifier": identifier})


def test_another_parser_is_rejected(files: Wire) -> None:
    identifier = upload(files, "a.md", encoded("x"))["identifier"]
    settings = {"parserId": {"library": "other", "version": "1"}}
    (packet,) = files.stream("parseDocument", {"fileIdentifier": identifier, "parseOpts": settings})
    assert "other" in packet["error"]["title"]


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


def test_retrieval_without_settings_uses_any_embedding_model_and_defaults(files: Wire) -> None:
    packets = files.stream("retrieve", searching(files, "sky"))
    assert len(packets[-1]["result"]["entries"]) == 2


def test_a_retrieval_requires_a_loaded_embedding_model(server: Emulator, files: Wire) -> None:
    packets = files.stream("retrieve", searching(files, "sky", embeddingModel="nothing"))
    assert packets[-1]["error"]["displayData"]["code"] == "generic.noModelMatchingQuery"


def test_a_retrieval_can_be_cancelled() -> None:
    rule = {"then": [{"fault": "stall"}]}
    entry = ModelEntry(key="v", kind="embedding", rules=(rule,))
    with Emulator([entry], load=["v"]) as other, wire(other, "files") as files:
        channel = files.open("retrieve", searching(files, "sky"))
        files.receive()
        files.send(channel, {"type": "stop"})
        assert list(files.packets(channel))[-1]["type"] == "error"


class Held(ScriptedModel):
    """A model that keeps the whole server waiting with its second vector."""

    reached, go_on = threading.Event(), threading.Event()
    vectors = 0

    async def embed(self, text: str) -> list[float]:
        self.vectors += 1
        if self.vectors == 2:
            self.reached.set()
            self.go_on.wait(TIMEOUT)
        return [1.0, len(text)]


def test_a_retrieval_can_be_cancelled_between_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ScriptedModel", Held)
    with Emulator([VECTORS], load=["vectors"]) as other, wire(other, "files") as files:
        identifier = upload(files, "a.txt", encoded("word " * 20_000))["identifier"]
        requested = {"query": "x", "fileIdentifiers": [identifier], "config": {"fields": []}}
        channel = files.open("retrieve", requested)
        assert Held.reached.wait(TIMEOUT)
        files.send(channel, {"type": "stop"})
        Held.go_on.set()
        assert "cancelled" in list(files.packets(channel))[-1]["error"]["title"]


@pytest.mark.parametrize("step", ["chunk", "rank"])
def test_the_long_steps_of_a_retrieval_do_not_block_others(
    server: Emulator, me: Wire, files: Wire, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached, go_on, done = threading.Event(), threading.Event(), getattr(retrieval, step)

    def slow(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(TIMEOUT)
        return done(*arguments)

    monkeypatch.setattr(retrieval, step, slow)
    channel = files.open("retrieve", searching(files, "sky"))
    assert reached.wait(TIMEOUT)
    assert len(me.result("listLoaded")) == 2
    go_on.set()
    assert list(files.packets(channel))[-1]["type"] == "result"
