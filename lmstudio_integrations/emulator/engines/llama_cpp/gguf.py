"""Reads the header of a GGUF file: the metadata of a model, without loading it.

Own code, because `gguf.GGUFReader` (0.19) is too slow for a listing: 4.9 s of CPU for the bundled model and 15.7 s for
a vocabulary of 150,000 tokens, this module 0.1 s and 0.2 s. It only reads regular files and never the data of tensors.
"""

import filecmp
import importlib
import os
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lmstudio_integrations.emulator.engines.base import ModelMetadata

MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_MAX_ENTRIES = 1 << 22
"""Metadata entries, tensors, or items of an array; the largest vocabularies have an eighth of this."""

_MAX_TEXT_LENGTH = 1 << 24
"""Bytes of one text; chat templates have a few thousand."""

_MAX_DIMENSIONS = 8

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""llama.cpp's values of `general.file_type`."""


class GgufError(ValueError):
    """A file is not a usable GGUF file; the message contains the reason."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The metadata without arrays, the number of parameters, and the offset of the last tensor in the file."""

    metadata: dict[str, Any]
    parameters: int
    last_tensor: int

    @property
    def architecture(self) -> str:
        """The name of the architecture, for example `llama`."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def bytes_per_token(self) -> int:
        """The size of a token in the KV cache, at 16 bits; 0 if unknown."""
        heads = self.of_architecture("attention.head_count", 1)
        width = self.of_architecture("embedding_length") // max(1, heads)
        of_both = self.of_architecture("attention.key_length", width) + self.of_architecture(
            "attention.value_length", width
        )
        return (
            self.of_architecture("block_count") * self.of_architecture("attention.head_count_kv", heads) * of_both * 2
        )

    def of_architecture(self, name: str, default: int = 0) -> int:
        """Return a number under the prefix of the architecture."""
        return self.whole(f"{self.architecture}.{name}", default)

    def whole(self, name: str, default: int) -> int:
        """Return a number, or the default if the value is missing or not a number."""
        value = self.metadata.get(name)
        return value if isinstance(value, int) else default


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file.

    Raises:
        GgufError: If the file does not exist, is not GGUF, or is truncated.
    """
    # A FIFO is none: opening it would wait for its writer. This raises nothing if a folder may not be entered.
    if not os.path.isfile(path):  # noqa: PTH113
        raise GgufError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            header = _read(file)
        size = path.stat().st_size
    except GgufError:
        raise
    except (OSError, ValueError, ArithmeticError) as error:
        raise GgufError(f"{path} cannot be read as GGUF: {error}") from error
    if size <= header.last_tensor:
        raise GgufError(f"{path} is cut off: it has {size} bytes and its last tensor begins at {header.last_tensor}")
    return header


def to_metadata(header: GgufHeader, size: int, *, vision: bool) -> ModelMetadata:
    quantization = _FILE_TYPES.get(header.whole("general.file_type", -1))
    return ModelMetadata(
        architecture=header.architecture,
        params=format_parameter_count(header.parameters),
        size_bytes=size,
        quantization=(quantization, int(re.sub(r"\D*(\d+).*", r"\1", quantization))) if quantization else None,
        max_context_length=header.of_architecture("context_length", 4096),
        embedding_length=header.of_architecture("embedding_length") or None,
        vision=vision,
        tools="tools" in str(header.metadata.get("tokenizer.chat_template", "")),
    )


def format_parameter_count(parameters: int) -> str:
    """Return a number of parameters in short form: `135M`, `1.2B`, `7B`."""
    if parameters >= 1_000_000_000:
        billions = parameters / 1_000_000_000
        return f"{billions:.0f}B" if billions >= 10 else f"{billions:.1f}B".replace(".0B", "B")
    return f"{parameters / 1_000_000:.0f}M"


def _read(file: BinaryIO) -> GgufHeader:
    if file.read(4) != MAGIC:
        raise GgufError(f"{file.name} is not a GGUF file: it does not begin with the letters GGUF")
    version, tensors, entries = _unpack(file, "IQQ")
    if version not in _VERSIONS or max(tensors, entries) > _MAX_ENTRIES:
        raise GgufError(f"{file.name} has a GGUF header of a kind that is unknown here (version {version})")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = _string(file)
        value = _value(file, _unpack(file, "I")[0])
        if value is not None:
            metadata[key] = value
    parameters, last = _tensors(file, tensors)
    alignment = int(metadata.get("general.alignment", 32))
    data = -(-file.tell() // alignment) * alignment
    return GgufHeader(metadata, parameters, data + last if tensors else 0)


def _tensors(file: BinaryIO, count: int) -> tuple[int, int]:
    """Return the number of parameters, and the highest offset."""
    parameters = last = 0
    for _ in range(count):
        _string(file)
        size = 1
        for extent in _unpack(file, f"{_number(file, 'I', _MAX_DIMENSIONS)}Q"):
            size *= extent
        parameters += size
        last = max(last, _unpack(file, "IQ")[1])
    return parameters, last


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        _skip_array(file)
        return None
    return _unpack(file, _SCALARS[kind])[0] if kind in _SCALARS else _unknown(file, kind)


def _skip_array(file: BinaryIO) -> None:
    kind, count = _unpack(file, "I")[0], _number(file, "Q", _MAX_ENTRIES)
    if kind in _SCALARS:
        file.seek(count * struct.calcsize(f"<{_SCALARS[kind]}"), 1)
        return
    for _ in range(count):
        if kind != _STRING:  # lists of lists, too: llama.cpp reads none
            _unknown(file, kind)
        file.seek(_unpack(file, "Q")[0], 1)


def _string(file: BinaryIO) -> str:
    return _exactly(file, _number(file, "Q", _MAX_TEXT_LENGTH)).decode("utf-8", "replace")


def _number(file: BinaryIO, layout: str, limit: int) -> int:
    """Read the number of bytes or elements that follow.

    Raises:
        GgufError: If it is more than any model has.
    """
    (number,) = _unpack(file, layout)
    if number > limit:
        raise GgufError(
            f"{file.name} cannot be read as GGUF: its header says {number} where at most {limit} makes sense"
        )
    return int(number)


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = f"<{layout}"
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise GgufError(f"{file.name} is cut off inside its header")
    return data


def _unknown(file: BinaryIO, kind: int) -> Any:
    raise GgufError(f"{file.name} has metadata of the unknown kind {kind}")


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
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, _METADATA["block_count"])
        for name, tensor in tensors.items():
            if not name.startswith("pooler.") and not name.endswith("position_ids"):
                writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor)
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
