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
from tests.emulator.engines.llama_cpp.gguf_files import METADATA, TENSORS, gguf, text


def test_a_header_has_the_metadata_of_a_listing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(METADATA, TENSORS))
    header = read_header(path)
    assert header.parameters == 96_000
    assert header.bytes_per_token == 4 * 2 * (8 + 8) * 2
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    metadata = LlamaCppEngine(threads=1).metadata(str(path), "llm")
    assert (metadata.architecture, metadata.quantization) == ("llama", ("Q4_K_M", 4))
    assert (metadata.max_context_length, metadata.embedding_length) == (8192, 64)
    assert metadata.size_bytes == path.stat().st_size
    assert metadata.tools
    assert not metadata.vision


NESTED = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000
"""An array in an array in an array."""


def head(kinds: str, *values: int) -> bytes:
    return b"GGUF" + struct.pack(f"<I{kinds}", 3, *values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with the letters GGUF"),
        (b"GGUF", "cut off inside its header"),
        (gguf(METADATA, TENSORS)[:120], "cut off inside its header"),
        (gguf(METADATA, TENSORS, data=1024), "cut off: it has"),
        (gguf(METADATA, TENSORS, version=99), "version 99"),
        (head("QQ", 1 << 60, 1), "of a kind that is unknown"),
        (head("QQ", 0, 1) + text("k") + struct.pack("<I", 77), "unknown kind 77"),
        (head("QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 77, 2), "unknown kind 77"),
        (head("QQ", 0, 1) + text("k") + NESTED, "unknown kind 9"),
        (head("QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 60), "cannot be read"),
        (head("QQQ", 0, 1, 1 << 62), "cannot be read as GGUF|cut off"),
        (head("QQ", 1, 0) + text("t") + struct.pack("<I", 1 << 31), "cannot be read as GGUF"),
        (gguf({"general.alignment": 0}, TENSORS), "cannot be read as GGUF"),
        (gguf({"general.alignment": "much"}, TENSORS), "cannot be read as GGUF"),
    ],
)
def test_what_is_no_gguf_is_named_as_such(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "broken.gguf").write_bytes(data)
    with pytest.raises(GgufError, match=words):
        read_header(tmp_path / "broken.gguf")


def test_a_text_in_place_of_a_number_is_passed_over(tmp_path: Path) -> None:
    metadata = METADATA | {"llama.context_length": "long", "general.file_type": "x"}
    (tmp_path / "m.gguf").write_bytes(gguf(metadata, TENSORS))
    found = LlamaCppEngine(threads=1).metadata(str(tmp_path / "m.gguf"), "llm")
    assert (found.architecture, found.max_context_length, found.quantization) == ("llama", 4096, None)


@pytest.mark.skipif(os.name != "posix", reason="has no FIFOs")
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    os.mkfifo(tmp_path / "mmproj-fifo.gguf")
    with pytest.raises(GgufError, match="there is no file"):
        read_header(tmp_path / "fifo.gguf")
    (tmp_path / "m.gguf").write_bytes(gguf(METADATA, TENSORS))
    assert not LlamaCppEngine(threads=1).metadata(str(tmp_path / "m.gguf"), "llm").vision


def test_quantizations_have_their_bits() -> None:
    found = [to_metadata(GgufHeader({"general.file_type": kind}, 1, 0), 1, vision=False) for kind in (32, 4711)]
    assert [metadata.quantization for metadata in found] == [("BF16", 16), None]
    assert found[0].architecture == "unknown"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [(134_515_008, "135M"), (1_235_814_432, "1.2B"), (7_000_000_000, "7B"), (70_553_706_496, "71B")],
)
def test_parameters_are_written_as_people_do(parameters: int, words: str) -> None:
    assert format_parameter_count(parameters) == words
