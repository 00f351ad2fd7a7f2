"""What a streamed text looks like on a terminal of some columns."""

import re
from io import StringIO

import pytest
from rich.cells import cell_len

from lmstudio_integrations.cli._common import TextConsole
from lmstudio_integrations.cli._wrapping import WordWrapper

URL = "https://example.com/a/long/path"


class Screen(StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Return what it shows. The tests use no wide characters in a word that moves."""
        lines = [""]
        for back, erase, character in re.findall(r"\x1b\[(\d+)D|(\x1b\[0K)|([^\x1b])", self.getvalue()):
            if back:
                lines[-1] = lines[-1][: -int(back)]
            elif character == "\n":
                lines.append("")
            elif not erase:
                lines[-1] += character
        return lines


def streamed(text: str, file: StringIO, size: int = 1) -> None:
    """Write a text in parts to a terminal of 20 columns."""
    wrapper = WordWrapper(TextConsole(file=file, width=20, force_terminal=True))
    for start in range(0, len(text), size):
        wrapper.write(text[start : start + size])


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("The ferry leaves from pier seven.", ["The ferry leaves ", "from pier seven."]),
        ("Exactly nineteen it is.", ["Exactly nineteen it", "is."]),
        ("Many      spaces       here", ["Many      spaces   ", "here"]),
        ("- one\n- two\n\nThree", ["- one", "- two", "", "Three"]),
        (f"See {URL} for all the rest", ["See ", f"{URL} for all", "the rest"]),
        ("A tab\tis eight columns", ["A tab\tis eight ", "columns"]),
        ("```sh\necho a line of code\n```\nThen words again here", [
            "```sh", "echo a line of code", "```", "Then words again ", "here",
        ]),
        ("```not``` a fence, but words", ["```not``` a fence, ", "but words"]),
        ("ferry \x1b[2J ferries ferry", [r"ferry \x1b[2J ", "ferries ferry"]),
    ],
)  # fmt: skip
def test_no_word_is_broken_in_two(text: str, lines: list[str], size: int) -> None:
    screen = Screen()
    streamed(text, screen, size)
    assert screen.lines() == lines


@pytest.mark.parametrize("text", ["長い文章は途中で折り返されます。", "👩‍👩‍👧 " * 9, "Ferry渡船Ferry渡船Ferry渡船"])
def test_wide_characters_take_two_columns(text: str) -> None:
    screen = Screen()
    streamed(text, screen)
    *full, _rest = screen.lines()
    assert full
    assert all(14 <= cell_len(line) <= 19 for line in full)
    assert "".join(screen.lines()).replace(" ", "") == text.replace(" ", "")


def test_a_word_is_shown_as_it_arrives() -> None:
    screen = Screen()
    wrapper = WordWrapper(TextConsole(file=screen, width=20, force_terminal=True))
    for part, shown in [
        ("The lo", ["The lo"]),
        ("ng", ["The long"]),
        ("-distance ferry", ["The long-distance ", "ferry"]),
    ]:
        wrapper.write(part)
        assert screen.lines() == shown


def test_a_pipe_gets_the_text_as_it_is() -> None:
    text, pipe = "The ferry leaves from pier\tseven.\n" * 3, StringIO()
    streamed(text, pipe)
    assert pipe.getvalue() == text
