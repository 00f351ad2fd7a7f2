"""Texts and vectors in llama.cpp's form."""

import base64
import struct

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp import request_body


@pytest.mark.parametrize("text", ["a", "How fast is it?\n(Twice, 100%.)", "x" * 56])
def test_a_short_plain_text_is_sent_as_it_is(text: str) -> None:
    assert request_body.fits(text, 64)


@pytest.mark.parametrize(
    "text", ["", " \n", "x" * 57, "a [SEP] b", "</s>", "<|endoftext|>", "|||", "é", "漢字", "\ufdfa"]
)
def test_the_tokens_of_any_other_text_are_counted(text: str) -> None:
    assert not request_body.fits(text, 64)


def test_a_vector_is_exactly_that_of_the_engine() -> None:
    data = base64.b64encode(struct.pack("<3f", 0.1, -2.0, 0.0)).decode()
    assert request_body.vector_of({"data": [{"embedding": data}]}) == [
        struct.unpack("<f", struct.pack("<f", 0.1))[0],
        -2.0,
        0.0,
    ]
    assert request_body.embedding([1, 2])["input"] == [1, 2]
