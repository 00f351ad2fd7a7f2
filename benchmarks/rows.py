"""The rows of the table: what is measured, by which programs, and how far it should get."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.targets import BEST_PEER, FLOOR, NATIVE_FLOOR, OURS, THREADS, Absolute, Multiple, Target

Group: TypeAlias = Literal["native", "langchain", "llama_index", "imports"]

BASE64, FLOATS = "base64", "lists of floats, as LM Studio sends"
"""Variants of a case: how a server sends vectors."""

TITLES: dict[Group, str] = {
    "native": "native",
    "langchain": "LangChain",
    "llama_index": "LlamaIndex",
    "imports": "import",
}
"""The groups by the names that readers know."""

PROGRAMS: dict[Group, dict[str, str]] = {
    "native": {
        FLOOR: "native_floor",
        OURS: "native_ours",
        "official SDK": "native_official",
        THREADS: "native_threads",
    },
    "langchain": {
        FLOOR: "langchain_floor",
        NATIVE_FLOOR: "langchain_native_floor",
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
        target: What ours should not exceed.
        over: The case by whose value each is divided, for rows that compare.
    """

    group: Group
    title: str
    case: str
    unit: str
    target: Target
    over: str | None = None

    @property
    def label(self) -> str:
        """Its name among all rows."""
        return f"{TITLES[self.group]}: {self.title}"


_TOKEN, _CALL, _TIMES = "µs per token", "ms per call", "times"
_AS_THE_FLOOR = Multiple(1, tolerance=0.05)
"""The ratio of two noisy medians; so much above the floor's still counts as no higher."""

_NOTICED = Absolute(0.3)
"""A machine's speed matters less here than how soon it wakes threads, so it is not scaled."""


def _native() -> list[Row]:
    return [
        Row("native", "stream, 1,000 tokens", "stream", _TOKEN, Multiple(0.8)),
        Row("native", "async stream, 1,000 tokens", "astream", _TOKEN, Multiple(0.8)),
        Row("native", "respond, one token", "one", _CALL, Multiple(1.5)),
        Row("native", "async respond, one token", "aone", _CALL, Multiple(1.5)),
        Row("native", "200 async streams of 100 tokens at once", "many", _TOKEN, Multiple(1.3)),
        Row("native", "stream paced at 200 tokens/s", "paced", _TOKEN, Multiple(1.4)),
        Row("native", "async stream paced at 200 tokens/s", "apaced", _TOKEN, Multiple(1.4)),
        Row("native", "1,000 embeddings of 768 floats", "embed", "ms", Multiple(0.33)),
        Row("native", "a token of 16,000 over one of 1,000", "long", _TIMES, _AS_THE_FLOOR, over="stream"),
        Row("native", "cancelled until the server notices", "cancel", "ms", _NOTICED),
        Row("native", "async, cancelled until the server notices", "acancel", "ms", _NOTICED),
    ]


def _langchain() -> list[Row]:
    construct = Absolute(12, {FLOOR: 8.9, "OpenAI": 355, "Ollama": 54_400})
    return [
        Row("langchain", "stream, 1,000 tokens", "stream", _TOKEN, Multiple(1.6)),
        Row("langchain", "astream, 1,000 tokens", "astream", _TOKEN, Multiple(1.6)),
        Row("langchain", "invoke, 1,000 tokens", "whole", _TOKEN, Multiple(0.6, NATIVE_FLOOR)),
        Row("langchain", "ainvoke, 1,000 tokens", "awhole", _TOKEN, Multiple(0.6, NATIVE_FLOOR)),
        Row("langchain", "invoke, one token", "one", _CALL, Multiple(2.5)),
        Row("langchain", "200 streams of 100 tokens at once", "many", _TOKEN, Multiple(1.4)),
        Row("langchain", "stream paced at 200 tokens/s", "paced", _TOKEN, Multiple(1, BEST_PEER)),
        Row("langchain", "astream paced at 200 tokens/s", "apaced", _TOKEN, Multiple(1, BEST_PEER)),
        Row("langchain", "1,000 embeddings of 768 floats", "embed", "ms", Multiple(0.33)),
        Row("langchain", "a token of 16,000 over one of 1,000", "long", _TIMES, _AS_THE_FLOOR, over="stream"),
        Row("langchain", "cancelled until the server notices", "cancel", "ms", _NOTICED),
        Row("langchain", "async, cancelled until the server notices", "acancel", "ms", _NOTICED),
        Row("langchain", "construct", "construct", "µs", construct),
    ]


def _llama_index() -> list[Row]:
    construct = Absolute(12, {FLOOR: 6.4, "lmstudio": 7.7})
    return [
        Row("llama_index", "stream_chat, 1,000 tokens", "stream", _TOKEN, Multiple(1.5)),
        Row("llama_index", "astream_chat, 1,000 tokens", "astream", _TOKEN, Multiple(1.5)),
        Row("llama_index", "chat, one token", "one", _CALL, Multiple(3.5)),
        Row("llama_index", "achat, one token", "aone", _CALL, Multiple(3.5)),
        Row("llama_index", "structured streaming, 1,000 tokens", "structured", _TOKEN, Multiple(0.2)),
        Row("llama_index", "1,000 embeddings of 768 floats", "embed", "ms", Multiple(0.33)),
        Row("llama_index", "a token of 16,000 over one of 1,000", "long", _TIMES, _AS_THE_FLOOR, over="stream"),
        Row("llama_index", "cancelled until the server notices", "cancel", "ms", _NOTICED),
        Row("llama_index", "async, cancelled until the server notices", "acancel", "ms", _NOTICED),
        Row("llama_index", "construct", "construct", "µs", construct),
    ]


def _imports() -> list[Row]:
    langchain = Absolute(70, {"Ollama": 140, "OpenAI": 581})
    # Only by what takes long there: small differences between long imports are noise.
    llama_index = Absolute(50, {"openai-like": 714})
    return [
        Row("imports", "native client", "native", "ms", Multiple(0.8)),
        Row("imports", "LangChain adapter, above core", "langchain", "ms", langchain),
        Row("imports", "LlamaIndex adapter, above core", "llama_index", "ms", llama_index),
    ]


ROWS: list[Row] = [*_native(), *_langchain(), *_llama_index(), *_imports()]


def cases(row: Row) -> list[str]:
    """Return the cases that a row needs."""
    return [row.case] if row.over is None else [row.case, row.over]
