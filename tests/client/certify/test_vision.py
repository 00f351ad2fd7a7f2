"""The row `vision` of a card."""

import struct
import zlib
from collections import Counter

from lmstudio_integrations.client.certify.answers import COLORS, SIZE, png
from tests.client.certify.canned import row_of
from tests.support.certified.rules import VISION


def test_a_good_model_names_every_color() -> None:
    row = row_of("vision", *VISION, vision=True)

    assert (row.summary, row.advice) == ("4 of 4 colors right", None)


def test_another_color_is_seen() -> None:
    row = row_of("vision", {"then": [{"text": "It is blue."}]}, vision=True)

    assert Counter((each.outcome, each.detail) for each in row.observations) == {
        ("wrong", "It is blue."): 3,
        ("right", ""): 1,
    }
    assert "another model" in (row.advice or "")


def test_a_model_that_names_every_color_is_wrong() -> None:
    row = row_of("vision", {"then": [{"text": "Red, green, blue or yellow."}]}, vision=True)

    assert row.summary == "0 of 4 colors right; wrong 4"


def test_what_the_server_rejects_is_seen() -> None:
    row = row_of("vision", {"when": {"image": True}, "then": [{"error": "no image decoder"}]}, vision=True)

    assert row.summary == "0 of 4 colors right; rejected 4"


def test_a_model_without_eyes_is_not_asked() -> None:
    row = row_of("vision", *VISION)

    assert (row.missing, row.observations) == ("the model sees no images", ())


def test_a_quick_card_asks_for_one_color() -> None:
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
