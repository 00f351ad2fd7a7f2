"""Writes a tiny model that cannot rewind: `python -m tests.support.recurrent_model FILE [TEMPLATE]`.

Mamba keeps one state instead of a cache of each token, so a prompt that differs from the last one in the middle is
processed again from the last checkpoint, or from its beginning. The weights are random and fixed, a token is a byte,
and the file has 375 KB. The model writes noise, so a test lets a grammar write its turns. It needs the packages of the
extra `emulator`.
"""

import importlib
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

EMBEDDING, INNER, STATE, RANK, WIDTH, BLOCKS = 64, 128, 8, 4, 4, 2
"""The length of a vector, inside a block as well, of its state and of its time step; the width of the convolution; the
blocks."""

CONTEXT_LENGTH = 32_768
"""The most tokens of a prompt and its response. A state has the same size for each."""

END = "<|end|>"
"""The token that ends a response."""

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat template if none is given: texts behind roles."""

_NORMAL, _CONTROL = 1, 3


def write(path: Path, template: str = TEMPLATE) -> Path:
    """Write the model, and return its path.

    Args:
        path: The GGUF file.
        template: Its chat template, in Jinja.

    Raises:
        ImportError: If `gguf` is missing.
    """
    writer = importlib.import_module("gguf").GGUFWriter(path, "mamba")
    _add_sizes(writer)
    _add_vocabulary(writer)
    writer.add_chat_template(template)
    for name, tensor in _tensors().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_sizes(writer: Any) -> None:
    writer.add_name("tiny-recurrent")
    writer.add_file_type(0)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(BLOCKS)
    writer.add_ssm_conv_kernel(WIDTH)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_vocabulary(writer: Any) -> None:
    """Add a token for each byte, and the one that ends a response."""
    tokens = [*_alphabet(), END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_NORMAL] * 256 + [_CONTROL])
    # llama.cpp wants at least one merge; of this one there is no token.
    writer.add_token_merges([f"{tokens[0]} {tokens[0]}"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)


def _alphabet() -> list[str]:
    """Return the character of each byte in GPT-2's spelling: itself if it can be printed, else one from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def _tensors() -> Mapping[str, Any]:
    random = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.05) -> Any:
        return random.normal(0, scale, shape).astype(np.float32)

    tensors = {
        "token_embd.weight": normal(257, EMBEDDING),
        "output_norm.weight": np.ones(EMBEDDING, np.float32),
        "output.weight": normal(257, EMBEDDING),
    }
    for block in range(BLOCKS):
        tensors |= {
            f"blk.{block}.attn_norm.weight": np.ones(EMBEDDING, np.float32),
            f"blk.{block}.ssm_in.weight": normal(2 * INNER, EMBEDDING),
            f"blk.{block}.ssm_conv1d.weight": normal(INNER, WIDTH),
            f"blk.{block}.ssm_conv1d.bias": normal(INNER),
            f"blk.{block}.ssm_x.weight": normal(RANK + 2 * STATE, INNER),
            f"blk.{block}.ssm_dt.weight": normal(INNER, RANK),
            f"blk.{block}.ssm_dt.bias": normal(INNER),
            f"blk.{block}.ssm_a": -np.abs(normal(INNER, STATE, scale=1.0)),
            f"blk.{block}.ssm_d": normal(INNER),
            f"blk.{block}.ssm_out.weight": normal(EMBEDDING, INNER),
        }
    return tensors


def main() -> None:
    """Write the model to the file that is named, with the template of another if one is named."""
    path, *template = map(Path, sys.argv[1:3])
    write(path, *(each.read_text(encoding="utf-8") for each in template))


if __name__ == "__main__":
    main()
