"""The transcripts of docs/protocol.md (#transcripts), line by line: `>` is the client, `<` the server."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

LLM_INFO: dict[str, Any] = {
    "type": "llm",
    "modelKey": "m1",
    "format": "gguf",
    "displayName": "M1",
    "publisher": "p",
    "path": "p/m1/m1.gguf",
    "sizeBytes": 397807936,
    "indexedModelIdentifier": "p/m1/m1.gguf",
    "deviceIdentifier": None,
    "paramsString": "0.5B",
    "architecture": "qwen2",
    "vision": False,
    "trainedForToolUse": True,
    "maxContextLength": 32768,
}
LLM_INSTANCE = {
    **LLM_INFO,
    "identifier": "m1",
    "instanceReference": "ref-m1",
    "ttlMs": 3600000,
    "lastUsedTime": None,
    "contextLength": 4096,
}
INSTANCE_A = {**LLM_INSTANCE, "identifier": "a", "instanceReference": "ref-a"}

_EMPTY_STACK = '{"layers":[{"layerName":"apiOverride","config":{"fields":[]}}]}'
_HELLO = '{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}'
_TOOLS = (
    '{"layers":[{"layerName":"apiOverride","config":{"fields":[{"key":"llm.prediction.tools","value":'
    '{"type":"toolArray","tools":[{"type":"function","function":{"name":"add","description":"add numbers",'
    '"parameters":{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},'
    '"required":["a","b"]}}}]}}]}}]}'
)
_PLACES = {
    "LLM_INFO": json.dumps(LLM_INFO),
    "LLM_INSTANCE": json.dumps(LLM_INSTANCE),
    "INSTANCE_A": json.dumps(INSTANCE_A),
    "STACK": _EMPTY_STACK,
    "HELLO": _HELLO,
    "TOOLS": _TOOLS,
    "REST": '"modelInfo":$LLM_INSTANCE$,"loadModelConfig":{"fields":[]},"predictionConfig":{"fields":[]}',
    "QUERY": '{"type":"query","query":{"identifier":"m1"}}',
    "REF_A": '{"type":"instanceReference","instanceReference":"ref-a"}',
}


def _read(name: str) -> str:
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8")


AUTHENTICATION = _read("authentication")
LIST_LOAD_RESPOND_UNLOAD = _read("list_load_respond_unload")
"""docs/protocol.md#transcript-get-or-load, as the official Python SDK sends it."""

ANY_MODEL_CANCEL_UNLOAD = _read("any_model_cancel_unload")
"""What the official TypeScript SDK sends; its ids of calls and channels have one counter."""

TOOL_ROUND = _read("tool_round")
"""docs/protocol.md#transcript-tools, both rounds; the tool message names its tool, as newer clients do."""

COMPLETE_ON_AN_OLD_SERVER = _read("complete_on_an_old_server")
"""A raw completion, requested in the new form and, because the server rejects it, in the old one.

See docs/protocol.md#prediction-keys and docs/protocol.md#client-versions.
"""


class Line(NamedTuple):
    """One frame and its sender."""

    by: Literal["client", "server"]
    frame: dict[str, Any]


def lines_of(transcript: str) -> list[Line]:
    """Return the frames of a conversation."""
    for _ in range(2):  # places hold places
        for name, text in _PLACES.items():
            transcript = transcript.replace(f"${name}$", text)
    return [
        Line("client" if line[0] == ">" else "server", json.loads(line[2:])) for line in transcript.strip().splitlines()
    ]


class Ids:
    """Brings the ids of a transcript and those of a client together: each counts as it likes."""

    def __init__(self) -> None:
        self._of_client: dict[tuple[str, Any], Any] = {}

    @staticmethod
    def _name(frame: dict[str, Any]) -> str | None:
        return next((name for name in ("callId", "channelId") if name in frame), None)

    def record(self, written: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
        """Record the id that a client used; return its frame with the id of the transcript."""
        name = self._name(written)
        if name is None or name not in sent:
            return sent
        if written["type"] != "channelSend":
            self._of_client[name, written[name]] = sent[name]
        known = self._of_client[name, written[name]] == sent[name]
        return {**sent, name: written[name]} if known else sent

    def translate(self, written: dict[str, Any]) -> dict[str, Any]:
        """Return a frame of the server with the id that the client used."""
        name = self._name(written)
        return written if name is None else {**written, name: self._of_client[name, written[name]]}
