"""The frames that fake servers send for a prediction, and a handle whose instance is already known."""

from typing import Any

from lmstudio_integrations.client.models.state import Instance

INFO = {"identifier": "chatty", "modelKey": "chatty"}


STATS = {"stopReason": "eosFound"}


END = {"type": "success", "stats": STATS, "modelInfo": {}, "loadModelConfig": {}, "predictionConfig": {}}


def packet(message: object) -> dict[str, Any]:
    """Return a frame with a packet of the first channel."""
    return {"type": "channelSend", "channelId": 1, "message": message}


def fragment(text: str) -> dict[str, Any]:
    return packet({"type": "fragment", "fragment": {"content": text, "tokensCount": 1, "reasoningType": "none"}})


def loaded_handle(client: Any) -> Any:
    """Return a handle whose instance is already known, so that it loads nothing."""
    handle = client.llm.lazy_model("chatty")
    handle._model.state.instance = Instance("chatty")
    return handle


async def joined(stream: Any) -> str:
    """Return the text of a stream."""
    return "".join([fragment.content async for fragment in stream])
