"""Whether a text that is being written ends with exact copies of one block, so that nobody wants more of it.

Found by string search: what stands at the end is looked for before it, which gives the period. The text is kept in
reverse, because Python searches forwards in linear time, and backwards it does not.
"""

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

LOOK_EVERY = 256
"""Characters between two looks."""

CHARACTERS = 8_000
"""Characters of copies, about 2,000 tokens, after which a text is stopped."""
_FEWEST_COPIES = 12
_FEWEST_COPIES_OF_USER = 3
"""The same where the user gives the number of characters."""
_LONGEST_BLOCK = 16_000
"""A longer block is not found."""
CALL = "\x1e"
"""What stands before each tool call in their text. A block with it is a call, whatever its arguments are."""

_SHORTEST_WITH_WORDS = 20
"""A shorter block is as likely to be a pattern, such as a border, as it is to be a sentence."""
_SHARE_OF_WORDS = 1 / 2
"""Less of base64, which has capitals in the middle, looks like words."""
_LETTERS = r"[^\W\d_]{2,}"
_FEWEST_LETTERS = 8
"""How many different letters words have. Hexadecimal numbers have six, and zeros in base64 two."""


class Repetition(NamedTuple):
    """One block again and again.

    Attributes:
        start: The character of the text at which the first copy begins.
        block: The first copy.
    """

    start: int
    block: str


def is_repeated(block: str, text: str) -> bool:
    """Whether a text has a block at least twice in a row, wherever the block begins.

    Where it stands twice in a row, so do all its rotations once. Of two of them, a text that has it once has one.
    """
    block *= -(-_SHORTEST_WITH_WORDS // len(block))
    half = len(block) // 2
    return block in text and block[half:] + block[:half] in text


def has_words(block: str) -> bool:
    """Whether a block consists of words for a large part."""
    if len(block) < _SHORTEST_WITH_WORDS:
        return False
    # A vowel of Hindi or Burmese is a mark of the letter before it.
    letters = "".join(each for each in block if not unicodedata.category(each).startswith("M"))
    words = "".join(run for run in re.findall(_LETTERS, letters) if not any(map(str.isupper, run[1:])))
    share = len(words) / len("".join(letters.split()) or " ")
    return share >= _SHARE_OF_WORDS and len(set(words.lower())) >= _FEWEST_LETTERS


@dataclass(slots=True)
class Watch:
    """Watches one text.

    Attributes:
        limit: For how many characters a block may be repeated; `None` for the default.
        copies: Whether copies of a block are looked for.
        needs_words: Whether only a block with words or a tool call counts.
        white_space: Whether white space counts, which need not be regular.
    """

    limit: int | None = None
    copies: bool = True
    needs_words: bool = False
    white_space: bool = False
    _reversed: str = field(default="", init=False)
    """The end of the text, from its last character on."""
    _length: int = field(default=0, init=False)
    """The characters of the whole text."""

    def add(self, text: str) -> Repetition | None:
        """Add what was written; return what the text ends with, if that is a repetition."""
        limit = self.limit or CHARACTERS
        self._length += len(text)
        self._reversed = (text[::-1] + self._reversed)[: max(_FEWEST_COPIES * _LONGEST_BLOCK, limit)]
        if self.white_space:
            spaces = len(self._reversed) - len(self._reversed.lstrip())
            if spaces >= limit:
                return self._last(spaces, spaces)
        return self._copies(limit) if self.copies else None

    def _copies(self, limit: int) -> Repetition | None:
        end, copies = self._reversed, _FEWEST_COPIES if self.limit is None else _FEWEST_COPIES_OF_USER
        # All copies but the first. Of a text that repeats itself for so long, only the copies have the period.
        probe = end[: limit - limit // copies]
        period = end.find(probe, 1)
        if len(end) < limit or period < 0:
            return None
        length = period + bisect_left(
            range(1, len(end) - period + 1), 1, key=lambda size: end[:size] != end[period : period + size]
        )
        if length < max(limit, copies * period):
            return None
        repetition = self._last(length, period)
        counts = not self.needs_words or CALL in repetition.block or has_words(repetition.block)
        return repetition if counts else None

    def _last(self, length: int, period: int) -> Repetition:
        """Return the last characters, which are copies of their first ones."""
        return Repetition(self._length - length, self._reversed[length - period : length][::-1])
