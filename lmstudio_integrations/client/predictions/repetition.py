"""Whether a text that is being written ends with one block again and again, so that nobody wants more of it.

Found by string search: what stands at the end is looked for before it, which gives the period. The limits come from
`tools/repetition_sweep.py`: no real text may reach one, and loops of real models reach them in time.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import SAFE_INTEGER
from lmstudio_integrations.errors import LMStudioValueError

LOOK_EVERY = 256
"""Characters between two looks."""

_WITH_WORDS = 1_600
"""Characters, about 400 tokens, within which a block of words is found. Three copies of a long one are more."""
_WITHOUT_WORDS = 8_000
"""The same for other blocks, about 2,000 tokens: lines, dots, zeros, empty cells of a table."""
_WHITE_SPACE_IN_JSON = 1_000
"""The same for white space where a grammar allows it everywhere. Indentation is shorter."""

_FEWEST_COPIES = 3
_FEWEST_COPIES_WITHOUT_WORDS = 12
"""More, because rows of a table of numbers may be long, and alike."""
_MOST_OF_FEW_WORDS = 8
_LONGEST_OF_FEW_WORDS = 16
"""How many different words a line may repeat in any order, and how long they are on average."""

_LONGEST_BLOCK = 4_000
_LONGEST_PROBE = 512
"""Characters at the end that are looked for. With fewer, they may stand several times in one block."""
_MOST_PLACES = 8
"""How many places where they stand are tried."""
_COUNTED = 2_048
"""Characters at the end in which a block with a number that rises is looked for."""

_SHORTEST_WITH_WORDS = 20
"""A shorter block is as likely to be a pattern, such as a border, as it is to be a sentence."""
_SHARE_OF_WORDS = 1 / 3
"""Less of base64, which has capitals in the middle, looks like words."""
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_SHORTEST_WORD = 3
"""One of the words is not shorter: `<td></td>` has none."""
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]{3}")
"""Letters of languages that have no spaces between words."""
_SENTENCE = re.compile(r"\b(?:[^\W\d_]+[,']? ){3}[^\W\d_]+|[\u3040-\u30ff\u3400-\u9fff]{6}")
"""Words in a row. Logs and lists of names have a number that rises as well."""
_NUMBER = re.compile(r"[0-9]+")
_IN_A_LIST = re.compile(r"[\n,;]")
"""What separates the numbers of a list."""


class Repetition(NamedTuple):
    """One block again and again.

    Attributes:
        start: The character of the text at which the first copy begins.
        block: The first copy.
    """

    start: int
    block: str


def characters_of(value: object) -> int | None:
    """Return for how many characters `stop_on_repetition` lets a block be repeated; `None` for the measured limits.

    Raises:
        LMStudioValueError: If it is neither a boolean nor a positive whole number.
    """
    if isinstance(value, bool):
        return None
    if not isinstance(value, int) or not 1 <= value <= SAFE_INTEGER:
        raise LMStudioValueError(
            f"stop_on_repetition must be True, False or a positive whole number of characters; got {shown(value)}"
        )
    return value


def is_repeated(block: str, text: str) -> bool:
    """Whether a text has a block at least twice in a row, wherever the block begins, and with any numbers.

    Where it stands twice in a row, so do all its rotations once. Of two of them, a text that has it once has one.
    """
    block, text = (_NUMBER.sub("0", each) for each in (block, text))
    block *= -(-_SHORTEST_WITH_WORDS // len(block))
    half = len(block) // 2
    return block in text and block[half:] + block[:half] in text


@dataclass(slots=True)
class Watch:
    """Watches one text.

    Attributes:
        limit: For how many characters a block may be repeated; `None` for the measured limits.
        is_json: Whether white space says nothing, as under a grammar.
    """

    limit: int | None = None
    is_json: bool = False
    _end: str = field(default="", init=False)
    """The end of the text."""
    _start: int = field(default=0, init=False)
    """The character at which that begins."""
    _numberless: str = field(default="", init=False)
    """The end of it, with a zero in place of each number."""

    def add(self, text: str) -> Repetition | None:
        """Add what was written; return what the text ends with, if that is a repetition."""
        length = max(_FEWEST_COPIES * _LONGEST_BLOCK, 2 * (self.limit or 0))
        end = self._end + text
        dropped = max(0, len(end) - length)
        self._end, self._start = end[dropped:], self._start + dropped
        repetition = self._white_space() or self._copies() or self._few_words()
        repetition = repetition or self._rising_numbers(_NUMBER.sub("0", text))
        return None if repetition is None else repetition._replace(start=self._start + repetition.start)

    def _white_space(self) -> Repetition | None:
        """Find white space, which need not be regular."""
        start = len(self._end.rstrip())
        limit = self._before_next_look(_WHITE_SPACE_IN_JSON if self.is_json else _WITHOUT_WORDS)
        return self._from(start) if len(self._end) - start >= limit else None

    def _copies(self) -> Repetition | None:
        end = self._end
        for period in self._periods(end):
            start = _start_of(end, period)
            block = end[start : start + period]
            has_words = period >= _SHORTEST_WITH_WORDS and _has_words(block)
            if len(end) - start >= self._least_length(block, has_words=has_words):
                return Repetition(start, block)
        return None

    def _few_words(self) -> Repetition | None:
        """Find a few short words in any order: texts have no line of this length without others."""
        limit = self._before_next_look(_WITHOUT_WORDS)
        line = self._end[-limit:]
        if len(line) < limit or "\n" in line:
            return None
        words = line.split(" ")
        most = min(_MOST_OF_FEW_WORDS, len(words) // _FEWEST_COPIES_WITHOUT_WORDS)
        if len(words) * _LONGEST_OF_FEW_WORDS < limit or len(set(words)) > most or not _LETTERS.search(line):
            return None
        return self._from(len(self._end) - limit)

    def _rising_numbers(self, text: str) -> Repetition | None:
        """Find copies of a block in which one number rises by one, and nothing else changes."""
        before = self._numberless
        is_divided = before[-1:] == text[:1] == "0"  # one number, in two looks
        self._numberless = (before + text[is_divided:])[-_COUNTED:]
        period = next(self._periods(self._numberless), 0) if "0" in text else 0
        block = self._numberless[-period:]
        if not period or "0" not in block:
            return None
        is_sentence = _SENTENCE.search(block * 2) is not None
        if not is_sentence and _IN_A_LIST.search(block):
            return None
        end = self._end
        start = _start_of_counted(end, block)
        # A list that counts may be what was asked for, and then it ends by itself.
        needed = self._least_length(block, has_words=False)
        return Repetition(start, end[start : start + period]) if len(end) - start >= needed else None

    def _periods(self, text: str) -> Iterator[int]:
        """Yield after how many characters the end of a text may repeat, smallest first."""
        probe = text[-max(1, min(_LONGEST_PROBE, (self.limit or _WITH_WORDS) // _FEWEST_COPIES)) :]
        at = last = len(text) - len(probe)
        for _ in range(_MOST_PLACES):
            at = text.rfind(probe, max(0, last - _LONGEST_BLOCK), at + len(probe) - 1)
            if at < 0:
                break
            yield last - at

    def _least_length(self, block: str, *, has_words: bool) -> int:
        """Return how many characters of a block and its copies are too many."""
        copies = _FEWEST_COPIES if has_words else _FEWEST_COPIES_WITHOUT_WORDS
        return self._before_next_look(_WITH_WORDS if has_words else _WITHOUT_WORDS, copies * len(block))

    def _before_next_look(self, limit: int, copies: int = 0) -> int:
        """Return from how many characters on a limit, or so many of copies, would be exceeded at the next look."""
        return max(limit, copies) - LOOK_EVERY if self.limit is None else max(self.limit, copies)

    def _from(self, start: int) -> Repetition:
        return Repetition(start, self._end[start:])


def _start_of(text: str, period: int) -> int:
    """Return the character from which on a text is the same as one period later."""
    return bisect_left(range(len(text) - period), 1, key=lambda start: text[start:-period] == text[start + period :])


def _start_of_counted(text: str, block: str) -> int:
    """Return the character at which the copies of a block begin in which one number rises; the end if it does not.

    Args:
        text: The text, which ends with a copy, or with a part of one.
        block: The block, with a zero in place of each number.
    """
    pattern = re.compile("([0-9]{1,18})".join(map(re.escape, block.split("0"))))
    text = text.rstrip("0123456789")  # the last number may not be complete
    size = min(_COUNTED, len(text))
    start = _start_of_rising(text[-size:], pattern)
    return len(text) - size + start if start > size // 2 else _start_of_rising(text, pattern)


def _start_of_rising(text: str, pattern: re.Pattern[str]) -> int:
    copies = [*pattern.finditer(text)]
    start, rising = len(text), None
    for copy, before in pairwise(reversed(copies)):
        numbers = zip(before.groups(), copy.groups(), strict=True)
        steps = {place: int(last) - int(first) for place, (first, last) in enumerate(numbers) if first != last}
        place = next(iter(steps), None)
        if before.end() != copy.start() or [*steps.values()] != [1] or rising not in {None, place}:
            break
        start, rising = before.start(), place
    return start


def _has_words(block: str) -> bool:
    """Whether a block consists of words for a large part, at least two different ones."""
    words = [run for run in _LETTERS.findall(block) if run.isupper() or not any(map(str.isupper, run[1:]))]
    share = sum(map(len, words)) / len("".join(block.split()) or " ")
    is_sentence = len(set(words)) > 1 and max(map(len, words)) >= _SHORTEST_WORD
    return share >= _SHARE_OF_WORDS and (is_sentence or _CJK.search(block) is not None)
