"""Content of the messages that are sent."""

import base64
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from tests.contract.langchain.integration import Integration, contract
from tests.contract.suite import PNG, error_of, texts_of
from tests.support.requested import digest

BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"


def _with_image(block: Any) -> list[HumanMessage]:
    return [HumanMessage([{"type": "text", "text": "look"}, block])]


@contract("system, human and AI messages are sent with their roles, in order")
def _roles(integration: Integration) -> None:
    conversation = [SystemMessage("Be terse."), HumanMessage("a"), AIMessage("b"), HumanMessage("count")]
    integration.chat().invoke(conversation)
    assert texts_of(integration.server.last_request) == [
        ("system", "Be terse."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "count"),
    ]


@contract("text in content blocks is sent unchanged")
def _text_blocks(integration: Integration) -> None:
    integration.chat().invoke([HumanMessage([{"type": "text", "text": "count"}])])
    assert texts_of(integration.server.last_request) == [("user", "count")]


@contract("images in standard content blocks are sent")
def _image(integration: Integration) -> None:
    integration.chat().invoke(_with_image({"type": "image", "base64": BASE64, "mime_type": "image/png"}))
    assert integration.server.last_request.images == [digest(PNG)]


@contract("images in OpenAI's `image_url` blocks, as data URLs, are sent")
def _image_url(integration: Integration) -> None:
    integration.chat().invoke(_with_image({"type": "image_url", "image_url": {"url": DATA_URL}}))
    assert integration.server.last_request.images == [digest(PNG)]


@contract("unsupported content raises an error instead of being dropped")
def _unsupported(integration: Integration) -> None:
    audio = {"type": "audio", "base64": base64.b64encode(b"RIFF0000WAVE").decode(), "mime_type": "audio/wav"}
    error_of(lambda: integration.chat().invoke(_with_image(audio)))
