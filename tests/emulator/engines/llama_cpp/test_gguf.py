"""Headers of GGUF files."""

import os
import struct
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import (
    GgufError,
    GgufHeader,
    format_parameter_count,
    read_header,
    to_metadata,
)
from tests.emulator.engines.llama_cpp.gguf_files import METADATA, TENSORS, gguf, text, write


def test_a_header_has_the_metadata_of_a_listing(tmp_path: Path) -> None:
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
    with pytest.raises(GgufError, match="there is no file"):
        read_header(tmp_path / "fifo.gguf")
    path = write(tmp_path / "m.gguf", gguf(METADATA, TENSORS))
    assert not LlamaCppEngine(threads=1).metadata(str(path), "llm").vision


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
