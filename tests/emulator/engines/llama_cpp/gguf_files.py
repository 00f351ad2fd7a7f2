"""Writes small GGUF files for tests."""

import struct
from pathlib import Path
from typing import Any

from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.llama_cpp import load_parameters
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import read_header
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.context_length": 8192,
    "llama.embedding_length": 64,
    "llama.block_count": 4,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "bb"],
    "tokenizer.ggml.scores": [1, 2],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{% if tools %}{% endif %}",
}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value: object) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    assert isinstance(value, list)
    if isinstance(value[0], list):
        return struct.pack("<IIQ", 9, 9, len(value)) + b"".join(typed(item)[4:] for item in value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)


def gguf(metadata: dict[str, Any], tensors: dict[str, tuple[int, ...]], *, version: int = 3, data: int = 4096) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text(key) + typed(value) for key, value in metadata.items())
    for number, (name, shape) in enumerate(tensors.items()):
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", 0, number * 1024)
    return head + bytes(-len(head) % 32) + bytes(data)


TENSORS: dict[str, tuple[int, ...]] = {"token_embd.weight": (64, 1000), "output.weight": (64, 500)}


def parameters(path: Path, *, memory: int = 5, **changes: Any) -> WorkerParameters:
    settings: dict[str, Any] = {"key": "m", "kind": "llm", "context_length": 1024, "slots": 2}
    return load_parameters.parameters_of(
        LoadRequest(**(settings | changes)), path, read_header(path), threads=3, memory=memory
    )
