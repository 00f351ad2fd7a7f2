"""Texts of which nobody wants less, of natural size: each has much that is alike, and none is a loop."""

import base64
import json
import random
from collections.abc import Iterable, Mapping

_CHANCE = random.Random(0)
_WORDS = ("harbour", "ferry", "noon", "timetable", "anchor", "delay", "island", "pilot", "rope", "crew", "signal")


def _sentence() -> str:
    return " ".join(_CHANCE.choices(_WORDS, k=9)).capitalize() + "."


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _matrix(rows: int, columns: int) -> str:
    return "[" + ",\n ".join(["[" + ", ".join(["0"] * columns) + "]"] * rows) + "]"


TEXTS: Mapping[str, tuple[str, ...]] = {
    # Those that were stopped once, by the limits of an earlier version.
    "899 INSERT lines": (_lines(f"INSERT INTO t VALUES ({number}, 'x');" for number in range(899)),),
    "399 steps": (_lines(f"{number}. Step {number}: check the rope once more." for number in range(1, 400)),),
    "a matrix of zeros": (_matrix(100, 36), _matrix(200, 50)),
    "a refrain of 40 lines": ("And the tide comes in, and the tide goes out,\n" * 40,),
    "ninety equal items": ("<ul>\n" + "  <li>Not available on this day</li>\n" * 90 + "</ul>\n",),
    # Others that have exact copies.
    "SQL without values": ("INSERT INTO seats DEFAULT VALUES;\n" * 200,),
    "empty CSV": ("a,b,c\n" + ",,\n" * 500, "a,b,c\n" + ",,\n" * 5_000),
    "a table of equal rows": ("| open | closed | free entry |\n" * 250,),
    "a song": ("\n".join(_lines([_sentence(), _sentence()]) + "Heave, and away we go.\n" * 12 for _ in range(9)),),
    "base64 of zeros": (_base64(_CHANCE.randbytes(500) + bytes(20_000) + _CHANCE.randbytes(500)),),
    "base64 of matrices": (_base64(bytes.fromhex("0000803f" + "00" * 16) * 900),),
    "base64 of records": tuple(_base64(_CHANCE.randbytes(size) * 300) for size in (24, 48)),
    "named numbers": (("harbour: " + "0.25, 0.5, 0.75, " * 4 + "the last one\n") * 250,),
    "a page": ("<table>\n" + '  <td class="seat free"></td>\n' * 200 + "</table>\n",),
    "a border": (("=" * 120 + "\n") * 200,),
    "a drawing": (_lines(("  .:*+=%@#  "[_CHANCE.randrange(6) :] * 6) for _ in range(300)),),
    "spaces": ("a" + " " * 7_000 + "b",),
    "hexadecimal constants": ("0xdeadbeef, 0xcafebabe, " * 1_000,),
    "labels": (json.dumps([{"label": "other", "relevant": False}] * 180),),
    "answers": ("on time\n" * 2_000, "not applicable\n" * 2_000),
    "two long copies": (_lines(_sentence() for _ in range(150)) * 2,),
}
"""The texts by what they are."""
