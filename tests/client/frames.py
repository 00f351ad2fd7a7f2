"""Frames of a prediction that scripted servers send, and a handle that needs no request to know its instance."""

from typing import Any

INFO = {"identifier": "chatty", "modelKey": "chatty"}


STATS = {"stopReason": "eosFound"}


END = {"type": "success", "stats": STATS, "modelInfo": {}, "loadModelConfig": {}, "predictionConfig": {}}


def packet(message: object) -> dict[str, Any]:
    """Return a frame with a packet of the first channel."""
    return {"type": "channelSend", "channelId": 1, "message": message}


def fragment(text: str) -> dict[str, Any]:
    return packet({"type": "fragment", "fragment": {"content": text, "tokensCount": 1, "reasoningType": "none"}})


def loaded_handle(client: Any) -> Any:
    """Return a handle that needs no call to know its instance."""
    handle = client.llm.lazy_model("chatty")
    handle.binding.identifier = "chatty"
    return handle


async def joined(stream: Any) -> str:
    """Return the text of a stream."""
    return "".join([fragment.content async for fragment in stream])
