"""The rows of the table: what is measured, how far it should get, and what others needed where the targets were set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Group: TypeAlias = Literal["native", "langchain", "llama_index", "imports"]

FLOOR, OURS, BEFORE = "floor", "ours", "before"
BASE64, FLOATS = "base64", "lists of floats, as LM Studio sends"
"""Variants of a case: how a server sends vectors."""

PROGRAMS: dict[Group, dict[str, str]] = {
    "native": {
        FLOOR: "native_floor",
        OURS: "native_ours",
        "official SDK": "native_official",
        "two bare threads": "native_threads",
    },
    "langchain": {
        FLOOR: "langchain_floor",
        OURS: "langchain_ours",
        "Ollama": "langchain_ollama",
        "OpenAI": "langchain_openai",
    },
    "llama_index": {
        FLOOR: "llama_index_floor",
        OURS: "llama_index_ours",
        "Ollama": "llama_index_ollama",
        "lmstudio": "llama_index_lmstudio",
        "openai-like": "llama_index_openai_like",
    },
}
"""The programs of each group by their roles; the module of each is in `programs`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        group: Whose it is.
        title: What it is about.
        case: What the programs call it.
        unit: The unit of all its values.
        target: What ours should not be above, on the machine of the targets; `None` is the floor itself.
        known: What the floor and the peers needed on that machine, by role; it tells how fast this machine is.
        over: The case by whose value each is divided, for rows that compare.
        scales: Whether the values grow on a slower machine.
    """

    group: Group
    title: str
    case: str
    unit: str
    target: float | None
    known: Mapping[str, float] = field(default_factory=dict[str, float])
    over: str | None = None
    scales: bool = True


def _native() -> list[Row]:
    token, call = "µs per token", "ms per call"
    return [
        Row("native", "stream, 1,000 tokens", "stream", token, 7, {FLOOR: 5.5, "official SDK": 81}),
        Row("native", "async stream, 1,000 tokens", "astream", token, 7, {FLOOR: 5.1, "official SDK": 47}),
        Row("native", "respond, one token", "one", call, 0.2, {FLOOR: 0.07, "official SDK": 0.65}),
        Row("native", "async respond, one token", "aone", call, 0.2, {FLOOR: 0.10, "official SDK": 0.42}),
        Row("native", "stream paced at 200 tokens/s", "paced", token, 70, {FLOOR: 71, "official SDK": 273}),
        Row("native", "async stream paced at 200 tokens/s", "apaced", token, 95),
        Row("native", "1,000 embeddings of 768 floats", "embed", "ms", 55, {"official SDK": 384}),
        Row("native", "a token of 16,000 over one of 1,000", "long", "times", None, over="stream", scales=False),
        Row("native", "cancelled until the server notices", "cancel", "ms", 1, scales=False),
        Row("native", "async, cancelled until the server notices", "acancel", "ms", 1, scales=False),
    ]


def _langchain() -> list[Row]:
    token, call = "µs per token", "ms per call"
    embed = {"Ollama": 95, f"OpenAI ({BASE64})": 62, f"OpenAI ({FLOATS})": 1017}
    return [
        Row("langchain", "stream, 1,000 tokens", "stream", token, 14, {FLOOR: 6.9, "Ollama": 21.3, "OpenAI": 89.5}),
        Row("langchain", "astream, 1,000 tokens", "astream", token, 15, {FLOOR: 7.2, "Ollama": 22.1, "OpenAI": 109}),
        Row("langchain", "invoke, 1,000 tokens", "whole", token, 6, {"Ollama": 30.4}),
        Row("langchain", "ainvoke, 1,000 tokens", "awhole", token, 6, {"Ollama": 30.4}),
        Row("langchain", "invoke, one token", "one", call, 0.32, {FLOOR: 0.076, "Ollama": 0.54, "OpenAI": 0.89}),
        Row("langchain", "200 streams of 100 tokens at once", "many", token, 30, {"Ollama": 45.5, "OpenAI": 148}),
        Row("langchain", "stream paced at 200 tokens/s", "paced", token, 130, {"Ollama": 135, "OpenAI": 194}),
        Row("langchain", "astream paced at 200 tokens/s", "apaced", token, 150, {"Ollama": 342}),
        Row("langchain", "1,000 embeddings of 768 floats", "embed", "ms", 60, embed),
        Row("langchain", "a token of 16,000 over one of 1,000", "long", "times", None, over="stream", scales=False),
        Row("langchain", "cancelled until the server notices", "cancel", "ms", 1, scales=False),
        Row("langchain", "async, cancelled until the server notices", "acancel", "ms", 1, scales=False),
        Row("langchain", "construct", "construct", "µs", 50, {"Ollama": 30600}),
    ]


def _llama_index() -> list[Row]:
    token, call = "µs per token", "ms per call"
    chat = {FLOOR: 8.7, "Ollama": 27.2, "lmstudio": 36.7, "openai-like": 93}
    achat = {FLOOR: 9.0, "Ollama": 30.2, "lmstudio": 43.2, "openai-like": 99}
    embed = {"Ollama": 108, f"openai-like ({BASE64})": 71, f"openai-like ({FLOATS})": 1049}
    one = {FLOOR: 0.051, "Ollama": 0.43, "lmstudio": 17.6, "openai-like": 0.94}
    return [
        Row("llama_index", "stream_chat, 1,000 tokens", "stream", token, 15.5, chat),
        Row("llama_index", "astream_chat, 1,000 tokens", "astream", token, 16.5, achat),
        Row("llama_index", "chat, one token", "one", call, 0.30, one),
        Row("llama_index", "achat, one token", "aone", call, 0.30),
        Row("llama_index", "structured streaming, 1,000 tokens", "structured", token, 50, {FLOOR: 250}),
        Row("llama_index", "1,000 embeddings of 768 floats", "embed", "ms", 65, embed),
        Row("llama_index", "a token of 16,000 over one of 1,000", "long", "times", None, over="stream", scales=False),
        Row("llama_index", "cancelled until the server notices", "cancel", "ms", 1, scales=False),
        Row("llama_index", "async, cancelled until the server notices", "acancel", "ms", 1, scales=False),
        Row("llama_index", "construct", "construct", "µs", 50),
    ]


def _imports() -> list[Row]:
    return [
        Row("imports", "native client", "native", "ms", 100, {"official SDK": 141}),
        Row("imports", "LangChain adapter, above core", "langchain", "ms", 60, {"Ollama": 93, "OpenAI": 384}),
        Row("imports", "LlamaIndex adapter, above core", "llama_index", "ms", 40, {"Ollama": 120, "openai-like": 441}),
    ]


ROWS: list[Row] = [*_native(), *_langchain(), *_llama_index(), *_imports()]


def cases(row: Row) -> list[str]:
    """Return the cases that a row needs."""
    return [row.case] if row.over is None else [row.case, row.over]
