"""The rows of the table: what is measured, how far it should get, and what others needed where the targets were set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Group: TypeAlias = Literal["native", "langchain", "llama_index", "imports"]

FLOOR, OURS = "floor", "ours"

PROGRAMS: dict[Group, dict[str, str]] = {
    "native": {FLOOR: "native_floor", OURS: "native_ours", "official SDK": "native_official"},
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
    "imports": {FLOOR: "bare", OURS: "ours"},
}
"""The programs of each group by their roles; the module of each is in `programs`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        group: Whose it is.
        title: What it is about.
        case: What the programs call it.
        unit: The unit of all its figures.
        target: What ours should not be above, on the machine of the targets; `None` is the floor itself.
        known: What the floor and the peers needed on that machine, by role; they tell how fast this machine is.
        over: The case by whose figure each is divided, for rows that compare.
        scales: Whether the figures grow on a slower machine.
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
        Row("native", "left early until the server knows", "leave", "ms", 1, scales=False),
        Row("native", "async, left early until the server knows", "aleave", "ms", 1, scales=False),
    ]


ROWS: list[Row] = [*_native()]


def cases(row: Row) -> list[str]:
    """Return the cases that a row needs."""
    return [row.case] if row.over is None else [row.case, row.over]
