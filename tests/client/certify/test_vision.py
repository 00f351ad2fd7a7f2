"""The row `vision` of a card."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from lmstudio_integrations.client.certify.answers import COLORS, SIZE, png
from tests.client.certify.canned import row_of
from tests.support.certified.rules import VISION


@pytest.mark.parametrize(
    ("rules", "summary"),
    [
        (VISION, "4 of 4 colors right"),
        ([{"then": [{"text": "It is blue."}]}], "1 of 4 colors right; wrong 3"),
        ([{"then": [{"text": "Red, green, blue or yellow."}]}], "0 of 4 colors right; wrong 4"),
        ([{"when": {"image": True}, "then": [{"error": "no image decoder"}]}], "0 of 4 colors right; rejected 4"),
    ],
)
def test_a_model_must_name_one_color_and_that_of_the_image(rules: Sequence[Any], summary: str) -> None:
    row = row_of("vision", *rules, vision=True)
    assert row.summary == summary
    assert ("another model" in (row.advice or "")) == bool(row.failures)
    assert all(each.detail for each in row.failures)


def test_a_model_without_eyes_is_not_asked_and_a_quick_card_asks_for_one_color() -> None:
    row = row_of("vision", *VISION)
    assert (row.missing, row.observations) == ("the model sees no images", ())
    assert row_of("vision", *VISION, vision=True, quick=True).summary == "1 of 1 colors right"


def test_an_image_is_a_png_of_one_color() -> None:
    content = png(COLORS["yellow"])
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(name + data),)
        chunks[name] = data
        at += 12 + length

    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == struct.pack(">2I5B", SIZE, SIZE, 8, 2, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == (b"\x00" + b"\xff\xff\x00" * SIZE) * SIZE
