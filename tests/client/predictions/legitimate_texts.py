"""Texts of which nobody wants less, of natural size: each has much that is alike, and none is a loop."""

import base64
import json
import random
from collections.abc import Callable, Iterable, Mapping

_WORDS = (
    *("harbour", "ferry", "noon", "timetable", "anchor", "delay", "island", "pilot", "rope", "crew", "signal"),
    *("weather", "storm", "cabin", "deck", "lamp", "ticket", "bridge", "channel", "buoy", "captain", "freight"),
)


def _sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randrange(5, 14))).capitalize() + "."


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _matrix(rows: int, columns: int) -> str:
    return "[" + ",\n ".join(["[" + ", ".join(["0"] * columns) + "]"] * rows) + "]"


def _song(chance: random.Random) -> str:
    refrain = _lines(_sentence(chance) for _ in range(4))
    verses = (_lines(_sentence(chance) for _ in range(4)) for _ in range(chance.randrange(4, 9)))
    return "\n".join(verse + "\n" + refrain * chance.randrange(1, 4) for verse in verses)


def _page(chance: random.Random) -> str:
    seats = ('  <td class="seat free"></td>' for _ in range(chance.randrange(40, 200)))
    return "<table>\n" + _lines(seats) + "</table>\n"


KINDS: Mapping[str, Callable[[random.Random], str]] = {
    "SQL without values": lambda chance: "INSERT INTO seats DEFAULT VALUES;\n" * chance.randrange(20, 200),
    "empty CSV": lambda chance: "a,b,c\n" + ",,\n" * chance.randrange(500, 5_000),
    "a table of equal rows": lambda chance: "| open | closed | free entry |\n" * chance.randrange(30, 250),
    "a song": _song,
    "one line of a refrain": lambda chance: _lines([_sentence(chance)] * 40),
    "base64 of zeros": lambda chance: base64.b64encode(
        chance.randbytes(500) + bytes(20_000) + chance.randbytes(500)
    ).decode(),
    "base64 of matrices": lambda chance: base64.b64encode(
        b"".join(bytes.fromhex("0000803f" + "00" * 16) for _ in range(chance.randrange(200, 900)))
    ).decode(),
    "base64 of records": lambda chance: base64.b64encode(chance.randbytes(chance.choice([24, 48])) * 300).decode(),
    "named numbers": lambda chance: (
        ("harbour: "[: chance.randrange(4, 10)] + "0.25, 0.5, 0.75, " * 4 + "the last one\n")
        * chance.randrange(100, 250)
    ),
    "a page": _page,
    "a matrix": lambda chance: _matrix(chance.randrange(20, 200), chance.randrange(10, 50)),
    "a border": lambda chance: ("=" * 120 + "\n") * chance.randrange(10, 200),
    "a drawing": lambda chance: _lines(("  .:*+=%@#  "[chance.randrange(6) :] * 6) for _ in range(300)),
    "spaces": lambda chance: "a" + " " * chance.randrange(1_000, 7_000) + "b",
    "a hex dump": lambda chance: _lines(
        f"{16 * row:08x}  00 00 00 00 ff ff ff ff  de ad be ef 00 00 00 00" for row in range(chance.randrange(100, 400))
    ),
    "hexadecimal constants": lambda chance: "0xdeadbeef, 0xcafebabe, " * chance.randrange(100, 1_000),
    "labels": lambda chance: json.dumps([{"label": "other", "relevant": False}] * chance.randrange(50, 180)),
    "answers": lambda chance: chance.choice(["on time\n", "not applicable\n"]) * chance.randrange(100, 2_000),
    "two long copies": lambda chance: _lines(_sentence(chance) for _ in range(150)) * 2,
}

_NAMED = {
    "899 INSERT lines": _lines(f"INSERT INTO t VALUES ({number}, 'x');" for number in range(899)),
    "399 steps": _lines(f"{number}. Step {number}: check the rope once more." for number in range(1, 400)),
    "a matrix of zeros": _matrix(100, 36),
    "a refrain of 40 lines": "And the tide comes in, and the tide goes out,\n" * 40,
    "ninety equal items": "<ul>\n" + "  <li>Not available on this day</li>\n" * 90 + "</ul>\n",
}
"""Those that were stopped once, by the limits of an earlier version."""

TEXTS: Mapping[str, tuple[str, ...]] = {
    **{kind: tuple([write(random.Random(seed)) for seed in range(4)]) for kind, write in KINDS.items()},
    **{name: (text,) for name, text in _NAMED.items()},
}
"""The texts by what they are."""
