"""GGUF headers, the conversion of MiniLM, and what a load makes of both. All ours; no engine runs."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import weights
from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters, minilm
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import (
    GgufError,
    GgufHeader,
    format_parameter_count,
    read_header,
    to_metadata,
)
from lmstudio_integrations.types.config import LlmLoadModelConfig

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


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_header_says_what_a_listing_needs(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    header = read_header(path)
    assert header.parameters == 96_000
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    metadata = LlamaCppEngine(threads=1).metadata(str(path), "llm")
    assert metadata.architecture == "llama"
    assert metadata.quantization == ("Q4_K_M", 4)
    assert metadata.max_context_length == 8192
    assert metadata.embedding_length == 64
    assert metadata.size_bytes == path.stat().st_size
    assert metadata.tools
    assert not metadata.vision


def test_a_projector_beside_a_model_gives_it_eyes(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    projector = write(tmp_path / "mmproj-model.gguf", b"")
    assert LlamaCppEngine(threads=1).metadata(str(path), "llm").vision
    assert parameters(path).projector == str(projector)
    given = parameters(path, options={"projector": "/elsewhere.gguf"})
    assert given.projector == "/elsewhere.gguf"


def test_lists_of_lists_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf({"x": [[1, 2], [3]], "general.architecture": "bert"}, {}))
    assert read_header(path).architecture == "bert"


NESTED = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000
"""An array in an array in an array."""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with the letters GGUF"),
        (b"PK\x03\x04 something else", "does not begin with the letters GGUF"),
        (b"GGUF", "cut off inside its header"),
        (gguf(METADATA, TENSORS)[:120], "cut off inside its header"),
        (gguf(METADATA, TENSORS, data=1024), "cut off: it has"),
        (gguf(METADATA, TENSORS, version=99), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "of a kind that is unknown"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "unknown kind 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 77, 2), "unknown kind 77"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "cannot be read as GGUF|cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 1 << 31), "cannot be read as GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + NESTED, "unknown kind 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 60), "cannot be read"),
        (gguf({"general.alignment": 0}, TENSORS), "cannot be read as GGUF"),
        (gguf({"general.alignment": "much"}, TENSORS), "cannot be read as GGUF"),
    ],
)
def test_what_is_no_gguf_is_named_as_such(tmp_path: Path, data: bytes, words: str) -> None:
    path = write(tmp_path / "broken.gguf", data)
    with pytest.raises(GgufError, match=words):
        read_header(path)


def test_a_text_in_place_of_a_number_is_passed_over(tmp_path: Path) -> None:
    metadata = METADATA | {"llama.context_length": "long", "general.file_type": "x"}
    path = write(tmp_path / "m.gguf", gguf(metadata, TENSORS))
    found = LlamaCppEngine(threads=1).metadata(str(path), "llm")
    assert (found.max_context_length, found.quantization) == (4096, None)


@pytest.mark.skipif(os.name != "posix", reason="has no FIFOs")
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    os.mkfifo(tmp_path / "mmproj-fifo.gguf")
    with pytest.raises(GgufError, match="is not a regular file"):
        read_header(tmp_path / "fifo.gguf")
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert not LlamaCppEngine(threads=1).metadata(str(path), "llm").vision


@pytest.mark.parametrize("name", ["missing.gguf", "", None, "."])
def test_weights_that_are_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="Failed to load model") as caught:
        LlamaCppEngine(threads=1).metadata(name, "llm")
    assert caught.value.cause
    assert caught.value.suggestion


def test_quantizations_have_their_bits() -> None:
    header = GgufHeader({"general.file_type": 32}, 1, 0)
    assert to_metadata(header, 1, vision=False).quantization == ("BF16", 16)
    assert to_metadata(GgufHeader({"general.file_type": 4711}, 1, 0), 1, vision=False).quantization is None
    assert to_metadata(GgufHeader({}, 1, 0), 1, vision=True).architecture == "unknown"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (134_515_008, "135M"),
        (22_565_376, "23M"),
        (1_235_814_432, "1.2B"),
        (7_000_000_000, "7B"),
        (70_553_706_496, "71B"),
    ],
)
def test_parameters_are_written_as_people_do(parameters: int, words: str) -> None:
    assert format_parameter_count(parameters) == words


@pytest.mark.parametrize("name", list(weights.BUNDLES))
def test_the_known_facts_of_bundled_weights_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    bundle = weights.BUNDLES[name]
    first, *others = weights.locate(bundle, offline=True)
    path = first
    if first.suffix != ".gguf":
        path = tmp_path / "converted.gguf"
        minilm.convert(first, others[0], path)
    found = to_metadata(read_header(path), first.stat().st_size, vision=False)
    assert found == LlamaCppEngine(threads=1).metadata(name, bundle.kind)
    assert load_parameters.is_embedding(read_header(path)) == (bundle.kind == "embedding")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.word_embeddings.weight", "token_embd.weight"),
        ("embeddings.position_embeddings.weight", "position_embd.weight"),
        ("embeddings.token_type_embeddings.weight", "token_types.weight"),
        ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
        ("encoder.layer.3.attention.self.query.weight", "blk.3.attn_q.weight"),
        ("encoder.layer.0.attention.output.LayerNorm.bias", "blk.0.attn_output_norm.bias"),
        ("encoder.layer.5.output.dense.weight", "blk.5.ffn_down.weight"),
        ("encoder.layer.5.output.LayerNorm.weight", "blk.5.layer_output_norm.weight"),
    ],
)
def test_each_tensor_gets_llama_cpps_name(name: str, expected: str) -> None:
    assert minilm.tensor_name(name) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [("[CLS]", ("[CLS]", 3)), ("[unused7]", ("[unused7]", 5)), ("##ing", ("ing", 1)), ("run", ("\u2581run", 1))],
)
def test_each_word_piece_gets_llama_cpps_spelling(word: str, expected: tuple[str, int]) -> None:
    assert minilm.vocabulary_entry(word) == expected


def parameters(path: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"key": "m", "kind": "llm", "context_length": 1024, "slots": 2}
    return load_parameters.parameters_of(
        LoadRequest(**(settings | changes)), path, read_header(path), threads=3, memory=5
    )


def test_load_settings_reach_the_worker(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    config = LlmLoadModelConfig.parse(
        {
            "gpu": {"ratio": 0.5},
            "flashAttention": True,
            "ropeFrequencyBase": 5000.0,
            "llamaKCacheQuantizationType": "q8_0",
            "llamaVCacheQuantizationType": False,
            "promptTemplate": {"type": "jinja", "jinjaPromptTemplate": {"template": "T"}},
            "seed": 5,
        }
    )
    told = parameters(path, fields=config.to_fields())
    assert (told.model, told.context_length, told.slots, told.threads) == (str(path), 1024, 2, 3)
    assert told.gpu_layers == 2
    assert told.flash_attention is True
    assert told.rope_frequency == (5000.0, 0.0)
    assert told.cache_types == ("q8_0", "f16")
    assert told.chat_template == "T"
    assert load_parameters.seed_of(LoadRequest("m", "llm", fields=config.to_fields())) == 5


@pytest.mark.parametrize(("ratio", "layers"), [("max", None), ("off", 0), (1, 4), (None, None)])
def test_layers_go_where_the_ratio_says(tmp_path: Path, ratio: Any, layers: int | None) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    fields = {} if ratio is None else {"llm.load.llama.acceleration.offloadRatio": ratio}
    assert parameters(path, fields=fields).gpu_layers == layers


def test_a_window_is_never_more_than_the_model_was_made_for(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, context_length=200_000_000).context_length == 8192


def test_slots_are_no_more_than_the_engine_knows(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert parameters(path, slots=1023).slots == 256


def test_slots_share_a_window_only_if_they_must(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert read_header(path).bytes_per_token == 4 * 2 * (8 + 8) * 2
    assert parameters(path).cache_length == 0
    large = write(tmp_path / "large.gguf", gguf(METADATA | {"llama.embedding_length": 1 << 20}, TENSORS))
    assert parameters(large).cache_length == 1024
    assert parameters(large, fields={"llm.load.useUnifiedKvCache": False}).cache_length == 0


@pytest.mark.parametrize(
    "settings",
    [{"speculativeDraftMtp": True}, {"speculativeDraftSimple": True, "speculativeDraftModel": "small"}],
)
def test_a_draft_model_is_refused_at_load(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    fields = LlmLoadModelConfig.parse(settings).to_fields()
    with pytest.raises(EngineError, match="speculative"):
        parameters(path, fields=fields)


def test_one_core_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert load_parameters.spare_threads() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert load_parameters.spare_threads() == 1
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert load_parameters.spare_threads() == 1
