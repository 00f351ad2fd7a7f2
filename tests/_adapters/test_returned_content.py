"""What tools and models returned never ends a conversation and never makes the client read a file.

A note takes the place of what cannot be sent. In a message of the user, the same is an error.
"""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
    VideoBlock,
)

from lmstudio_integrations import errors
from lmstudio_integrations.client.files import uploads
from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from tests._adapters.ways import METHODS
from tests.langchain.conftest import CHAT, OTHER, Server
from tests.support.adapters import covering
from tests.support.base64_forms import FORMS as BASE64
from tests.support.requested import digest
from tests.support.web import PIXEL, WAIT, Web, web_server

GIF, SVG = b"GIF89a" + bytes(20), b"<svg xmlns='http://www.w3.org/2000/svg'/>"
OVERWHELMED, STRICT = "overwhelmed", "strict"
"""A model whose server rejects images, and one that rejects every request."""


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{in_base64(content)}"


# Forms: what a tool may return, as a block of LangChain and one of LlamaIndex -----------------------------------------

Form = tuple[dict[str, Any], Callable[[], Any]]


def image(content: bytes, media_type: str = "image/png") -> Form:
    block = {"type": "image", "base64": in_base64(content), "mime_type": media_type}
    return block, lambda: ImageBlock(image=content, image_mimetype=media_type)


def on_the_web(url: str) -> Form:
    return {"type": "image_url", "image_url": {"url": url}}, lambda: ImageBlock(url=url)


GOOD = image(PIXEL)
NO_IMAGE = "it is not a JPEG, PNG or WebP image"
SECRET = "https://h/a.png?key=hunter2"
PDF, RIFF, MP4 = b"%PDF\xff", b"RIFF\xff\xffWAVE", b"\xff\xffftyp"
FORMS: dict[str, tuple[Form, str]] = {
    "a URL": (({"type": "image", "url": SECRET}, lambda: ImageBlock(url=SECRET)), "the image https://h/a.png is on"),
    "a URL in the form of OpenAI": (on_the_web("https://h/a.png"), "the image https://h/a.png is on the web"),
    "a GIF": (image(GIF, "image/gif"), NO_IMAGE),
    "an SVG": (image(SVG, "image/svg+xml"), NO_IMAGE),
    "bytes of no image": (({"type": "image", "data": b"PK"}, lambda: ImageBlock(image=b"PK")), NO_IMAGE),
    "a cut PNG": (
        ({**GOOD[0], "base64": in_base64(PIXEL)[:9]}, lambda: ImageBlock(image=PIXEL[:6])),
        "because",
    ),
    "the data URL of a GIF": (on_the_web(data_url(GIF, "image/gif")), NO_IMAGE),
    "the URL of a file": (
        ({"type": "image", "url": "file:///etc/passwd"}, lambda: ImageBlock(url="file:///etc/passwd")),
        "an image's URL must begin with data:, http:// or https://",
    ),
    "nothing": (({"type": "image"}, ImageBlock), "image"),
    "audio": (({"type": "audio", "data": RIFF}, lambda: AudioBlock(audio=RIFF)), "not shown"),
    "video": (({"type": "video", "data": MP4}, lambda: VideoBlock(video=MP4)), "not shown"),
    "a file that is no text": (
        (
            {"type": "file", "data": PDF, "mime_type": "application/pdf"},
            lambda: DocumentBlock(data=PDF, document_mimetype="application/pdf"),
        ),
        "not shown, because it is not text",
    ),
    "an identifier of no file": (({"type": "file", "identifier": "x"}, lambda: TextBlock(text="x")), "x"),
    "types of other kinds": (
        ({"type": "file", "data": b"a,b", "mime_type": b"text/csv"}, lambda: TextBlock(text="not shown")),
        "not shown",
    ),
}


def conversation(make: Any, block: Any, role: str) -> list[Any]:
    """Return a conversation with a block in a message of the user, in one of the model, or in the result of a tool."""
    if make is ChatLMStudio:
        call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
        messages: dict[str, Callable[[], list[Any]]] = {
            "user": lambda: [HumanMessage([block])],
            "assistant": lambda: [HumanMessage("Draw!"), AIMessage(["Done.", block]), HumanMessage("What is it?")],
            "tool": lambda: [HumanMessage("Look!"), call, ToolMessage(["seen", block], tool_call_id="1")],
        }
        return messages[role]()
    question = ChatMessage("What is it?", role="user")
    call_block = ToolCallBlock(tool_call_id="1", tool_name="look", tool_kwargs={})
    return {
        "user": lambda: [ChatMessage(blocks=[block], role="user")],
        "assistant": lambda: [
            question,
            ChatMessage(blocks=[TextBlock(text="Done."), block], role="assistant"),
            question,
        ],
        "tool": lambda: [
            question,
            ChatMessage(blocks=[call_block], role="assistant"),
            ChatMessage(blocks=[TextBlock(text="seen"), block], role="tool", additional_kwargs={"tool_call_id": "1"}),
        ],
    }[role]()


class Send:
    """Sends a block of a form in a message of a role, in one of the ways."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.make, self.method = METHODS[name]

    def __call__(self, form: Form, role: str, **settings: Any) -> str:
        """Return the texts of the message as the server received it."""
        block = form[0] if self.make is ChatLMStudio else form[1]()
        with self.make(**{"model": CHAT, "host": self.server.address, **settings}) as llm:
            self.method(llm, conversation(self.make, block, role))
        return self.text(role)

    def text(self, role: str) -> str:
        history = self.server.last_request.history
        assert history is not None
        parts = [part.to_dict() for message in history.messages if message.role == role for part in message.content]
        return "".join(part.get("text", part.get("content", "")) for part in parts)

    def images(self) -> list[str]:
        return self.server.last_request.images

    def roles(self) -> list[str]:
        history = self.server.last_request.history
        assert history is not None
        return [message.role for message in history.messages]


@pytest.fixture
def server() -> Iterator[Server]:
    rejected = {"when": {"image": True}, "then": [{"error": "failed to decode the image"}]}
    models = [
        ModelEntry(key=CHAT, vision=True),
        ModelEntry(key=OTHER),
        ModelEntry(key=OVERWHELMED, vision=True, rules=(rejected,)),
        ModelEntry(key=STRICT, vision=True, rules=({"then": [{"error": "no"}]},)),
    ]
    with Server(models) as running:
        yield running


IMAGES = [name for name in FORMS if name not in {"an identifier of no file", "types of other kinds"}]


@pytest.mark.parametrize("role", ["tool", "assistant"])
@pytest.mark.parametrize(("way", "form"), covering(METHODS, FORMS))
def test_a_note_takes_the_place_of_what_was_returned_and_cannot_be_sent(
    server: Server, way: str, form: str, role: str
) -> None:
    send, (block, reason) = Send(server, way), FORMS[form]
    text = send(block, role)
    assert text.startswith("seen" if role == "tool" else "Done.")
    assert reason in text or role == "assistant"
    assert "hunter2" not in text
    assert not send.images()
    assert send.roles() == ["user", "assistant", "tool" if role == "tool" else "user"]


@pytest.mark.parametrize(("way", "form"), covering(METHODS, IMAGES))
def test_in_a_message_of_the_user_the_same_is_an_error(server: Server, way: str, form: str) -> None:
    with pytest.raises((errors.LMStudioValueError, errors.LMStudioOSError)):
        Send(server, way)(FORMS[form][0], "user")
    assert not server.predictions


@pytest.mark.parametrize("encode", BASE64.values(), ids=BASE64)
@pytest.mark.parametrize("way", ["invoke", "chat"])
def test_content_is_read_from_every_form_of_base64(server: Server, way: str, encode: Callable[[bytes], str]) -> None:
    image, send = PIXEL + b"\xfb\xff\xbf", Send(server, way)
    text, url = encode(image), f"data:image/png;base64,{encode(image)}"
    send(({"type": "image", "base64": text, "mime_type": "image/png"}, lambda: ImageBlock(image=text.encode())), "user")
    assert send.images() == [digest(image)]
    send(on_the_web(url), "user")
    assert send.images() == [digest(image)]
    written = "grüß ≤≥ dich??>>"
    text = encode(written.encode())
    document: Form = (
        {"type": "text-plain", "base64": text, "mime_type": "text/plain"},
        lambda: DocumentBlock(url=f"data:text/plain;base64,{text}"),
    )
    assert send(document, "user") == written


@pytest.mark.parametrize("way", ["invoke", "chat"])
@pytest.mark.parametrize(
    ("url", "finding"),
    [
        ("ftp://example.org/cat.png", "must begin with"),
        ("file:///tmp/cat.png", "must begin with"),
        ("cat.png", "'cat.png' is a file, not the URL of an image; pass it as path"),
        (in_base64(PIXEL), "is bare base64; put data:image/png;base64, before it"),
    ],
)
def test_an_image_with_another_url_is_rejected(server: Server, way: str, url: str, finding: str) -> None:
    block = {"type": "image_url", "image_url": {"url": url}}, lambda: ImageBlock.model_construct(url=url)
    with pytest.raises(errors.LMStudioValueError, match=finding):
        Send(server, way)(block, "user")


@pytest.mark.parametrize("role", ["tool", "assistant"])
@pytest.mark.parametrize("way", METHODS)
def test_an_image_that_can_be_sent_is_sent(server: Server, way: str, role: str) -> None:
    send = Send(server, way)
    assert "not shown" not in send(GOOD, role)
    assert send.images() == [digest(PIXEL)]
    assert send.roles() == ["user", "assistant", *(["tool"] if role == "tool" else []), "user"]


@pytest.mark.parametrize("role", ["tool", "assistant"])
@pytest.mark.parametrize("way", METHODS)
def test_a_model_without_vision_gets_a_note_for_each_image_that_was_returned(
    server: Server, way: str, role: str
) -> None:
    send = Send(server, way)
    assert "[image: not shown, because the model sees no images]" in send(GOOD, role, model=OTHER)
    assert not send.images()
    with pytest.raises(errors.LMStudioUnsupportedError):
        send(GOOD, "user", model=OTHER)


@pytest.mark.parametrize("way", METHODS)
def test_images_that_the_server_rejects_are_replaced_by_notes(server: Server, way: str) -> None:
    send = Send(server, way)
    assert "[image: not shown, because the server has rejected it]" in send(GOOD, "tool", model=OVERWHELMED)
    assert [len(record.images) for record in server.predictions] == [1, 0]
    with pytest.raises(errors.LMStudioServerError, match="failed to decode"):
        send(GOOD, "user", model=OVERWHELMED)
    assert len(server.predictions) == 3


def test_an_error_that_is_not_about_the_images_is_raised_after_one_more_request(server: Server) -> None:
    with pytest.raises(errors.LMStudioServerError, match="no"):
        Send(server, "invoke")(GOOD, "tool", model=STRICT)
    assert len(server.predictions) == 2


@pytest.mark.parametrize("way", METHODS)
def test_the_image_of_the_user_is_sent_beside_a_note_for_that_of_a_tool(server: Server, way: str) -> None:
    send = Send(server, way)
    make, method = METHODS[way]
    bad, good = (each[0] if make is ChatLMStudio else each[1]() for each in (FORMS["a GIF"][0], GOOD))
    method(make(model=CHAT, host=server.address), [*conversation(make, bad, "tool"), *conversation(make, good, "user")])
    assert NO_IMAGE in send.text("tool")
    assert send.images() == [digest(PIXEL)]


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "private.png"
    path.write_bytes(PIXEL)
    return path


def paths(path: Path) -> list[Form]:
    """Return every form in which a message may name a file."""
    blocks: list[dict[str, Any]] = [
        {"type": "image", "path": str(path)},
        {"type": "image", "source": {"path": str(path)}},
        {"type": "image", "source": {"type": "file", "path": str(path), "media_type": "image/png"}},
        {"type": "image_url", "image_url": {"path": str(path)}},
        {"type": "image", "url": str(path)},
        {"type": "image", "url": path.as_uri()},
        {"type": "image_url", "image_url": {"url": path.as_uri()}},
        {"type": "image", "source": {"type": "url", "url": str(path)}},
        {"type": "file", "path": str(path), "mime_type": "text/plain"},
        {"type": "file", "url": path.as_uri(), "mime_type": "text/plain"},
        {"type": "text-plain", "url": str(path), "mime_type": "text/plain"},
    ]
    made: list[Callable[[], Any]] = [
        lambda: ImageBlock(path=path),
        lambda: ImageBlock(url=path.as_uri()),
        lambda: DocumentBlock(path=path, document_mimetype="text/plain"),
        lambda: DocumentBlock(path=str(path)),
        lambda: DocumentBlock(url=path.as_uri()),
        lambda: AudioBlock(path=path),
        lambda: VideoBlock(path=path),
        lambda: CitableBlock(title="t", source="s", content=[DocumentBlock(path=path)]),
    ]
    return [*((block, lambda: None) for block in blocks), *(({}, each) for each in made)]


@pytest.mark.parametrize("role", ["tool", "assistant"])
@pytest.mark.parametrize("way", ["invoke", "astream", "chat", "astream_chat"])
def test_no_file_is_read_that_a_tool_or_a_model_names(
    server: Server, way: str, role: str, file: Path, opened: list[Path]
) -> None:
    send = Send(server, way)
    for form in paths(file):
        if (send.make is ChatLMStudio) == bool(form[0]):
            send(form, role)
            assert not send.images(), form
    assert file not in opened


@pytest.mark.parametrize("way", ["invoke", "astream", "chat", "astream_chat"])
def test_a_file_is_read_that_the_program_names(server: Server, way: str, file: Path, opened: list[Path]) -> None:
    send = Send(server, way)
    send(({"type": "image", "path": str(file)}, lambda: ImageBlock(path=file)), "user")
    assert send.images() == [digest(PIXEL)]
    assert file in opened


@pytest.mark.parametrize("name", ["b.png", "\ud83d/b.png", "\0b.png"])
@pytest.mark.parametrize("way", ["invoke", "astream", "chat", "astream_chat"])
def test_a_file_that_is_not_there_is_one_error(server: Server, way: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    form: Form = (
        {"type": "image", "path": str(path)},
        lambda: ImageBlock.model_construct(path=path),
    )  # unchecked by core
    with pytest.raises(errors.LMStudioOSError, match=r"cannot read .*b\.png"):
        Send(server, way)(form, "user")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose content was read, in any thread."""
    found: list[Path] = []
    read_bytes = Path.read_bytes

    def record(path: Path) -> bytes:
        found.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", record)
    return found


# Downloads ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        running.pages["/gone"] = lambda request: request.head(404)
        yield running


@pytest.mark.leaf
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "chat", "achat"])
def test_a_note_says_why_a_returned_image_was_not_downloaded(server: Server, web: Web, way: str) -> None:
    send = Send(server, way)
    assert "is not at a public address" in send(on_the_web(web.url()), "tool", allow_image_download=True)
    trusted: dict[str, Any] = {"allow_image_download": "private"}
    assert "404 Not Found" in send(on_the_web(web.url("/gone")), "tool", **trusted)
    assert not send.images()
    send(on_the_web(web.url()), "tool", **trusted)
    assert send.images() == [digest(PIXEL)]
    with pytest.raises(errors.LMStudioImageDownloadError):
        send(on_the_web(web.url("/gone")), "user", **trusted)


@pytest.mark.leaf
def test_a_returned_image_that_does_not_arrive_leaves_time_for_the_response(
    server: Server, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "DOWNLOAD_TIMEOUT", 0.2)
    send = Send(server, "invoke")
    text = send(
        on_the_web(web.url("/silent")), "tool", allow_image_download="private", timeouts={"total_timeout": WAIT}
    )
    assert "did not arrive within 0.2 s" in text
    assert web.client_closed.wait(WAIT)
