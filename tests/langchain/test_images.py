"""Pictures: uploaded, fetched only when that is allowed, refused by models that cannot see."""

import base64
from collections.abc import Iterator

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from tests.langchain.conftest import OTHER, Invoke, Server
from tests.requested import digest
from tests.web import PIXEL, Web, web_server

BLOCK = {"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server with one image."""
    with web_server() as running:
        yield running


def seen(server: Server) -> list[str]:
    return server.asked.images


def test_a_picture_reaches_the_model(server: Server, ask: Invoke) -> None:
    ask(server.chat(), [HumanMessage([{"type": "text", "text": "What is it?"}, BLOCK])])
    assert seen(server) == [digest(PIXEL)]


def test_a_picture_of_a_tool_reaches_the_model(server: Server, ask: Invoke) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    ask(server.chat(), [HumanMessage("Look!"), call, ToolMessage([BLOCK], tool_call_id="1")])
    assert seen(server) == [digest(PIXEL)]


def test_a_picture_on_the_web_is_fetched_only_when_allowed(server: Server, ask: Invoke, web: Web) -> None:
    question = [HumanMessage([{"type": "image_url", "image_url": {"url": web.url()}}])]
    with pytest.raises(LMStudioValueError, match="allow_image_download"):
        ask(server.chat(), question)
    ask(server.chat(allow_image_download=True, allow_private_image_hosts=True), question)
    assert seen(server) == [digest(PIXEL)]


@pytest.mark.parametrize("url", ["http://exa mple.com/a.png", "http://h/ä b.png", "http://[bad/a.png", "HTTP://ä..b/a"])
def test_an_address_that_is_none_is_named(server: Server, ask: Invoke, url: str) -> None:
    with pytest.raises(LMStudioOSError, match="cannot download the image"):
        ask(server.chat(allow_image_download=True), [HumanMessage([{"type": "image", "url": url}])])


def test_what_is_not_an_image_is_rejected(server: Server, ask: Invoke) -> None:
    block = {**BLOCK, "base64": base64.b64encode(b"hello").decode()}
    with pytest.raises(LMStudioValueError, match="not a JPEG, PNG or WebP image"):
        ask(server.chat(), [HumanMessage([block])])


def test_a_model_that_cannot_see_refuses(server: Server, ask: Invoke) -> None:
    with pytest.raises(ModelError):
        ask(server.chat(model=OTHER), [HumanMessage([BLOCK])])
