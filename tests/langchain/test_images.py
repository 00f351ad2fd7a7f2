"""Pictures: uploaded, fetched only when that is allowed, refused by models that cannot see."""

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from lmstudio_integrations._adapters import images
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from tests.langchain.conftest import OTHER, Invoke, Server

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BLOCK = {"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/a.png"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(PIXEL)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """A web server with one picture."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as httpd:
        thread = threading.Thread(target=partial(httpd.serve_forever, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join(5)


def seen(server: Server) -> list[bytes]:
    return [image.data for image in server.asked.images.values()]


def test_a_picture_reaches_the_model(server: Server, ask: Invoke) -> None:
    ask(server.chat(), [HumanMessage([{"type": "text", "text": "What is it?"}, BLOCK])])
    assert seen(server) == [PIXEL]


def test_a_picture_of_a_tool_reaches_the_model(server: Server, ask: Invoke) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    ask(server.chat(), [HumanMessage("Look!"), call, ToolMessage([BLOCK], tool_call_id="1")])
    assert seen(server) == [PIXEL]


def test_a_picture_on_the_web_is_fetched_only_when_allowed(server: Server, ask: Invoke, web: str) -> None:
    question = [HumanMessage([{"type": "image_url", "image_url": {"url": f"{web}/a.png"}}])]
    with pytest.raises(LMStudioValueError, match="allow_image_download"):
        ask(server.chat(), question)
    ask(server.chat(allow_image_download=True), question)
    assert seen(server) == [PIXEL]


def test_a_picture_that_cannot_be_fetched_is_named(server: Server, ask: Invoke, web: str) -> None:
    question = [HumanMessage([{"type": "image", "url": f"{web}/b.png"}])]
    with pytest.raises(LMStudioOSError, match=r"b\.png"):
        ask(server.chat(allow_image_download=True), question)


@pytest.mark.parametrize("url", ["http://exa mple.com/a.png", "http://h/ä b.png", "http://[bad/a.png", "HTTP://ä..b/a"])
def test_an_address_that_is_none_is_named(server: Server, ask: Invoke, url: str) -> None:
    with pytest.raises(LMStudioOSError, match="cannot fetch the image"):
        ask(server.chat(allow_image_download=True), [HumanMessage([{"type": "image", "url": url}])])


def test_a_picture_may_not_be_huge(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_LARGEST", 10)
    with pytest.raises(LMStudioOSError, match="larger than"):
        images.download(f"{web}/a.png")


def test_what_is_no_picture_is_refused(server: Server, ask: Invoke) -> None:
    block = {**BLOCK, "base64": base64.b64encode(b"hello").decode()}
    with pytest.raises(LMStudioValueError, match="picture"):
        ask(server.chat(), [HumanMessage([block])])


def test_a_model_that_cannot_see_refuses(server: Server, ask: Invoke) -> None:
    with pytest.raises(ModelError):
        ask(server.chat(model=OTHER), [HumanMessage([BLOCK])])
