"""Converts all-MiniLM-L6-v2 from safetensors to GGUF, with the same numbers (F32).

llama.cpp reads only GGUF, and these weights are published as safetensors. Needs `gguf`, `safetensors` and `numpy`,
which are imported on use.
"""

import filecmp
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

_METADATA = {
    "name": "all-MiniLM-L6-v2",
    "license": "apache-2.0",
    "file_type": 0,
    "block_count": 6,
    "context_length": 512,
    "embedding_length": 384,
    "feed_forward_length": 1536,
    "head_count": 12,
    "layer_norm_eps": 1e-12,
    "causal_attention": False,
}
"""The metadata of the model, by the names of the writer's methods."""
_MEAN_POOLING = 1
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
_SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "bos", "[SEP]": "eos", "[MASK]": "mask"}

_TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def convert(weights: Path, vocabulary: Path, target: Path) -> None:
    """Write the GGUF file.

    The file appears under its name only when it is complete, so two processes can convert at once.

    Args:
        weights: The safetensors file.
        vocabulary: One word piece per line.
        target: The GGUF file.

    Raises:
        ImportError: If `gguf` or `safetensors` is missing.
    """
    gguf = importlib.import_module("gguf")
    tensors = importlib.import_module("safetensors.numpy").load_file(str(weights))
    words = vocabulary.read_text(encoding="utf-8").splitlines()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=target.parent, suffix=".gguf")
    os.close(handle)
    try:
        writer = gguf.GGUFWriter(scratch, "bert")
        for name, value in _METADATA.items():
            getattr(writer, f"add_{name}")(value)
        writer.add_uint32("bert.pooling_type", _MEAN_POOLING)
        _add_vocabulary(writer, words)
        for name, tensor in tensors.items():
            if not name.startswith("pooler.") and not name.endswith("position_ids"):
                writer.add_tensor(tensor_name(name), tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        try:
            Path(scratch).replace(target)
        except PermissionError:  # on Windows, if a server has loaded what another one has converted meanwhile
            if not (target.is_file() and filecmp.cmp(scratch, target, shallow=False)):
                raise
    finally:
        Path(scratch).unlink(missing_ok=True)


def tensor_name(name: str) -> str:
    """Return llama.cpp's name of a tensor."""
    if name in _TENSORS:
        return _TENSORS[name]
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("encoder.layer."):
        return f"{_TENSORS[stem]}.{suffix}"
    block, _, part = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{block}.{_TENSORS[part]}.{suffix}"


def vocabulary_entry(word: str) -> tuple[str, int]:
    """Return llama.cpp's spelling of a word piece, and its kind.

    The vocabulary prefixes pieces that continue a word; llama.cpp prefixes those that begin one.
    """
    if word in _SPECIAL:
        return word, _CONTROL
    if word.startswith("[unused"):
        return word, _UNUSED
    return (word[2:] if word.startswith("##") else f"\u2581{word}"), _NORMAL


def _add_vocabulary(writer: Any, words: list[str]) -> None:
    entries = [vocabulary_entry(word) for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in entries])
    writer.add_token_types([kind for _, kind in entries])
    writer.add_token_type_count(2)
    for word, name in _SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", words.index(word))
    # The format itself spells it so.
    writer.add_uint32("tokenizer.ggml.seperator_token_id", words.index("[SEP]"))
