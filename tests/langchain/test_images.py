"""Images: uploaded, downloaded only when that is allowed, rejected by models without vision."""

import base64
from pathlib import Path

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from lmstudio_integrations.errors import LMStudioOSError
from tests.langchain.conftest import OTHER, Invoke, Server
from tests.support.requested import digest
from tests.support.web import PIXEL

BLOCK = {"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}


def seen(server: Server) -> list[str]:
    return server.last_request.images


def test_an_image_reaches_the_model(server: Server, generate: Invoke) -> None:
    generate(server.chat(), [HumanMessage([{"type": "text", "text": "What is it?"}, BLOCK])])
    assert seen(server) == [digest(PIXEL)]


def test_an_image_is_read_from_a_path(server: Server, generate: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PIXEL)
    generate(server.chat(), [HumanMessage([{"type": "image", "path": str(path)}])])
    assert seen(server) == [digest(PIXEL)]
    for name in ("b.png", "\ud83d/b.png", "\0b.png"):
        with pytest.raises(LMStudioOSError, match=r"cannot read .*b\.png"):
            generate(server.chat(), [HumanMessage([{"type": "image", "path": str(tmp_path / name)}])])


def test_an_image_of_a_tool_reaches_the_model(server: Server, generate: Invoke) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    generate(server.chat(), [HumanMessage("Look!"), call, ToolMessage([BLOCK], tool_call_id="1")])
    assert seen(server) == [digest(PIXEL)]


def test_a_model_that_cannot_see_rejects(server: Server, generate: Invoke) -> None:
    with pytest.raises(ModelError):
        generate(server.chat(model=OTHER), [HumanMessage([BLOCK])])
