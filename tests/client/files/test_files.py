"""Uploading, reading and searching files, and models to download."""

import base64
import copy
import errno
import io
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.files import Origin
from tests.support.ports import free_port
from tests.support.web import PIXEL

MODELS: list[dict[str, Any]] = [
    {"key": "seeing", "vision": True, "rules": [{"when": {"image": True}, "then": [{"text": "a picture"}]}]},
    {"key": "blind"},
    {"key": "vectors", "kind": "embedding"},
    {"key": "elsewhere", "downloaded": False, "display_name": "Elsewhere"},
]


@pytest.fixture
def server() -> Any:
    with Emulator(MODELS) as running:
        yield running


def _sources(tmp_path: Path) -> list[Any]:
    path = tmp_path / "dot.png"
    path.write_bytes(PIXEL)
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    return [path, str(path), PIXEL, bytearray(PIXEL), io.BytesIO(PIXEL), path.open("rb"), url]


async def test_an_image_may_be_a_path_bytes_a_file_or_a_data_url(client: Any, tmp_path: Path) -> None:
    model = await client.llm.model("seeing")
    for source in _sources(tmp_path):
        handle = await client.files.prepare_image(source)
        assert handle.name.endswith(".png")
        assert (handle.file_type, handle.size_bytes) == ("image", len(PIXEL))
        chat = lms.Chat()
        chat.add_user_message("what is it?", images=[handle])
        assert str(await model.respond(chat)) == "a picture"
        if isinstance(source, io.IOBase):
            source.close()


@pytest.mark.parametrize("prepare", ["prepare_image", "prepare_file"])
async def test_an_empty_file_is_rejected_by_that_word(
    client: Any, server: Emulator, tmp_path: Path, prepare: str
) -> None:
    path = tmp_path / "none.png"
    path.touch()
    exhausted = io.BytesIO(PIXEL)
    exhausted.read()
    sources = {path: "none.png'", b"": "b''", exhausted: "BytesIO", "data:image/png;base64,": "base64,'"}
    for source, shown in sources.items():
        with pytest.raises(lms.LMStudioValueError, match=f"{shown}.* is empty"):
            await getattr(client.files, prepare)(source)
    with path.open("rb") as opened, pytest.raises(lms.LMStudioValueError, match=r"none.png.* is empty.*seek\(0\)"):
        await getattr(client.files, prepare)(opened)
    assert not server.connections


@pytest.mark.parametrize(("given", "kept"), [("cat.jpg", "cat.jpg.png"), ("cat.PNG", "cat.PNG"), ("cat", "cat.png")])
async def test_the_extension_is_that_of_the_content(client: Any, given: str, kept: str) -> None:
    assert (await client.files.prepare_image(PIXEL, given)).name == kept
    assert (await client.files.prepare_image(b"RIFF\0\0\0\0WEBP", "cat")).name == "cat.webp"


class Torn:
    """A file that cannot be read."""

    def read(self) -> bytes:
        raise OSError(errno.EIO, "the disk is gone")


async def test_an_invalid_image_is_rejected(client: Any, tmp_path: Path) -> None:
    closed = io.BytesIO(PIXEL)
    closed.close()
    for source, error in (
        (b"GIF89a", lms.LMStudioValueError),
        ("data:image/png;base64,???", lms.LMStudioValueError),
        ("data:image/png;base64,é", lms.LMStudioValueError),
        (closed, lms.LMStudioOSError),
        (Torn(), lms.LMStudioOSError),
        ("data:image/png,abc", lms.LMStudioValueError),
        (tmp_path / "none.png", lms.LMStudioOSError),
        (tmp_path, lms.LMStudioOSError),
    ):
        with pytest.raises(error):
            await client.files.prepare_image(source)


async def test_an_image_for_a_model_without_vision_is_an_error(client: Any) -> None:
    model = await client.llm.model("blind")
    chat = lms.Chat()
    chat.add_user_message("what is it?", images=[await client.files.prepare_image(PIXEL)])
    with pytest.raises(lms.LMStudioUnsupportedError, match=r"(?i)image|vision"):
        await model.respond(chat)


async def test_a_file_is_uploaded_again_after_a_lost_connection(
    tmp_path: Path,
) -> None:
    port, path = free_port(), tmp_path / "dot.png"
    path.write_bytes(PIXEL)
    async with lms.AsyncClient(f"127.0.0.1:{port}") as client:
        with Emulator(MODELS, port=port):
            model = await client.llm.model("seeing")
            handles = [await client.files.prepare_image(source) for source in (PIXEL, path)]
            chat = lms.Chat()
            chat.add_user_message("what is it?", images=handles)
            assert str(await model.respond(chat)) == "a picture"
        with Emulator(MODELS, port=port):
            assert str(await model.respond(chat)) == "a picture"
            assert str(await model.respond(chat)) == "a picture"
        for ruin in (lambda: path.write_bytes(b""), path.unlink):
            ruin()
            with Emulator(MODELS, port=port), pytest.raises(lms.LMStudioFileExpiredError, match=r"dot\.png"):
                await model.respond(chat)


@pytest.mark.leaf
async def test_a_document_is_read_and_searched(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "facts.md"
    path.write_text("# Facts\n\nThe moon is made of rock.\n\nCheese is made of milk.\n", encoding="utf-8")
    handle = await client.files.prepare_file(path)
    seen: list[float] = []
    document = await client.files.parse_document(handle, on_progress=seen.append)
    assert "made of rock" in document.content
    assert document.parser.library
    assert seen == sorted(seen)
    steps: list[Any] = []
    await client.embedding.model("vectors")
    found = await client.files.retrieve(
        "what is cheese made of?", [handle], limit=1, on_progress=lambda *step: steps.append(step)
    )
    assert len(found.entries) == 1
    assert "milk" in found.entries[0].content
    assert found.entries[0].source_index == 0
    assert {step for _, step, _ in steps} <= {"loading", "chunking", "embedding"}


@pytest.mark.leaf("devices", "documents")
async def test_a_search_with_a_model_of_a_linked_device_is_an_error_that_names_the_device(make_client: Any) -> None:
    devices = [{"name": "studio", "identifier": "id", "preferred": True}]
    catalog = {"model": [{"key": "vectors", "kind": "embedding"}], "device": devices}
    with Emulator(catalog=catalog) as server:
        async with make_client(server.address) as client:
            document = await client.files.prepare_file(b"Cheese is made of milk.", "facts.txt")
            handle = await client.embedding.load_new_instance("vectors", "mine")
            for model in (handle, "mine", "vectors", None):
                with pytest.raises(lms.LMStudioUnsupportedError) as caught:
                    await client.files.retrieve("cheese", [document], embedding_model=model)
                assert "Model does not exist; 'mine' is loaded on the linked device 'studio'" in str(caught.value)
                assert "client.embedding.model('vectors', device='local')" in str(caught.value)
            with pytest.raises(lms.LMStudioModelNotFoundError, match="yours"):
                await client.files.retrieve("cheese", [document], embedding_model="yours")
            own = await client.embedding.model("vectors", device="local")
            assert (await client.files.retrieve("cheese", [document], embedding_model=own)).entries


@pytest.mark.leaf
async def test_the_embedding_model_of_a_search_may_be_a_handle(client: Any) -> None:
    document = await client.files.prepare_file(b"Cheese is made of milk.", "facts.txt")
    handle = await client.embedding.load_new_instance("vectors", "mine")
    by_handle = await client.files.retrieve("cheese", [document], embedding_model=handle)
    assert by_handle == await client.files.retrieve("cheese", [document], embedding_model="mine")
    with pytest.raises(lms.LMStudioServerError):
        await client.files.retrieve("cheese", [document], embedding_model="yours")
    for wrong in (await client.llm.model("seeing"), 5):
        with pytest.raises(lms.LMStudioValueError, match=r"embedding_model must be .*; got"):
            await client.files.retrieve("cheese", [document], embedding_model=wrong)


@pytest.mark.leaf
async def test_a_document_that_cannot_be_read_is_an_error(client: Any) -> None:
    handle = await client.files.prepare_file(b"%PDF-1.7", "paper.pdf")
    assert handle.file_type == "application/pdf"
    with pytest.raises(lms.LMStudioServerError, match=r"paper\.pdf"):
        await client.files.parse_document(handle)


@pytest.mark.leaf
async def test_a_model_is_found_and_downloaded(client: Any) -> None:
    (found,) = await client.repository.search_models("elsewhere", limit=5)
    progress, done = list[Any](), list[bool]()
    key = await (await found.get_download_options())[0].download(progress.append, lambda: done.append(True))
    assert found.name
    assert key == "elsewhere"
    assert done == [True]
    assert all(update.downloaded_bytes <= update.total_bytes for update in progress)


@pytest.mark.leaf
async def test_a_file_is_uploaded_again_for_a_server_that_does_not_know_it(
    server: Emulator,
) -> None:
    with Emulator(MODELS) as elsewhere:
        async with lms.AsyncClient(server.address) as here, lms.AsyncClient(elsewhere.address) as there:
            note = await here.files.prepare_file(b"The ferry takes twenty minutes.", "note.txt")
            for client in (there, here):
                assert "ferry" in (await client.files.parse_document(note)).content


class _Contended(Origin):
    """An origin that another thread uploads to another server at the worst moment: after each upload."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, ("on another server", None) if hasattr(self, name) else value)


@pytest.mark.leaf
async def test_each_server_receives_its_own_identifier_of_a_file(client: Any) -> None:
    note = await client.files.prepare_file(b"The ferry takes twenty minutes.", "note.txt")
    contended = note.with_origin(_Contended("note.txt", lambda: b"The train takes an hour.", ("unknown", None)))
    assert "train" in (await client.files.parse_document(contended)).content


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        (base64.b64encode(PIXEL).decode(), "bare base64; put data:image/png;base64, before it, or pass bytes"),
        (b"hello", "5 bytes that begin with b'hello' are not a JPEG, PNG or WebP image; convert them first"),
        ("nothing.png", "cannot read 'nothing.png': "),
        ("A" * 1_000_000, "cannot read 'AAAA"),
        (["A" * 1_000_000], "got ['AAAA"),
    ],
)
async def test_an_error_about_an_image_says_what_was_given_but_shows_no_megabytes(
    client: Any, source: Any, finding: str
) -> None:
    with pytest.raises((OSError, ValueError), match=re.escape(finding)) as caught:
        await client.files.prepare_image(source)
    assert isinstance(caught.value, OSError) == ("cannot" in finding)
    assert len(str(caught.value)) < 10_000


async def test_copies_of_a_handle_share_its_origin_and_pickles_drop_it(client: Any) -> None:
    note = await client.files.prepare_file(b"text", "note.txt")
    chat = lms.Chat()
    chat.add_user_message("Look", images=[note])
    assert copy.deepcopy(note).origin is note.origin
    pickled = pickle.loads(pickle.dumps(note))
    assert (pickled.to_dict(), pickled.origin) == (note.to_dict(), None)
    assert repr(pickle.loads(pickle.dumps(chat))) == repr(chat)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_not_uploaded(server: Emulator, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)  # nobody writes to it
    with lms.Client(server.address) as client, pytest.raises(lms.LMStudioError, match="it is a pipe or a device"):
        client.files.prepare_image(pipe)
