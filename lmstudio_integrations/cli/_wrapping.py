"""Wraps text at the borders of words as it is streamed to a terminal."""

import re

from rich.cells import cell_len
from rich.control import Control
from rich.segment import ControlType, Segment, Segments

from lmstudio_integrations._support.text import printable, printable_line
from lmstudio_integrations.cli._common import TextConsole, notes

_TAB = 8
"""Columns between the tab stops of a terminal."""

_ZERO_WIDTH_JOINER = "\u200d"
_FENCE = re.compile(r"\s*```[^`]*")


class WordWrapper:
    """Prints a text that arrives in parts. On a terminal, no word is broken in two; elsewhere the text stays as it is.

    A word is printed as it arrives, not when it is complete. If it turns out not to fit on the line, it is erased and
    moves to the next one. The terminal itself wraps words longer than a line, and the lines of a code block: they can
    be copied as they were written.

    Args:
        console: Where it is printed.
        style: How, in rich's words.
    """

    def __init__(self, console: TextConsole, style: str = "") -> None:
        self._console = console
        self._style = style
        # FORCE_COLOR makes rich call a pipe a terminal.
        self._wraps = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
        self._width = console.width
        self._line = ""
        """The line so far, as it was written."""
        self._word = ""
        """The word at its end."""
        self._start = 0
        """The column where that word begins."""
        self._in_code = False

    def write(self, text: str) -> None:
        """Print the next part."""
        if not self._wraps:
            self._console.write(text, self._style)
            return
        self._width = self._console.width  # it may have changed
        segments, run = list[Segment](), ""
        for character in printable(text):
            erased, shown = self._place(character)
            if erased:
                segments += Segment(run), _backward(erased)
                run = ""
            run += shown
        self._console.print(Segments([*segments, Segment(run)]), style=self._style, end="", soft_wrap=True)

    def _place(self, character: str) -> tuple[int, str]:
        """Return how to print a character: how many columns of the word to erase first, and a text."""
        if character == "\n":
            self._in_code ^= bool(_FENCE.fullmatch(self._line))
            self._line, self._word, self._start = "", "", 0
            return 0, character
        self._line += character
        if self._in_code:
            return 0, character
        # The last column stays free: terminals differ in where the cursor is after it.
        limit = self._width - 1
        if character in " \t":
            column = self._end_word()
            self._start = min(column + (1 if character == " " else _TAB - column % _TAB), limit + 1)
            return 0, character if self._start <= limit else ""
        if self._is_border(character):
            self._start = self._end_word()
        before, self._word = self._word, self._word + character
        if self._start == 0 or self._start + cell_len(self._word) <= limit:
            return 0, character
        self._start = 0
        return cell_len(before), f"\n{self._word}"

    def _end_word(self) -> int:
        """End the word, and return the column after it."""
        end = self._start + cell_len(self._word)
        self._word = ""
        # The terminal broke a word that is longer than a line.
        return (end - 1) % self._width + 1 if end else 0

    def _is_border(self, character: str) -> bool:
        """Return whether a line may end between the word and a character: beside wide ones, as in Chinese."""
        if not self._word or self._word[-1] == _ZERO_WIDTH_JOINER:
            return False
        width = cell_len(character)
        return width == 2 or (width == 1 and cell_len(self._word[0]) == 2)


def _backward(columns: int) -> Segment:
    """Return what moves the cursor backward and erases the rest of the line."""
    return Control((ControlType.CURSOR_BACKWARD, columns), (ControlType.ERASE_IN_LINE, 0)).segment


def note(text: str, *, dim: bool = False) -> None:
    """Print a line on stderr; on a terminal it is wrapped in whole words.

    Args:
        text: The line.
        dim: Whether it is less important than what is around it.
    """
    console = notes()
    shown = printable_line(text) if console.file.isatty() else text
    WordWrapper(console, dim_style(console) if dim else "").write(f"{shown}\n")


def dim_style(console: TextConsole) -> str:
    """Return the style of what is less important: none without colors, where rich would still dim."""
    return "" if console.no_color else "dim"
