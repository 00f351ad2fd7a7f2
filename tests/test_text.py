"""What of a text is escaped for a terminal, and what stays."""

import pytest

from lmstudio_integrations._support.text import printable, printable_line

ESCAPED = {
    "\0": "\\x00",
    "\a": "\\x07",
    "\b": "\\x08",
    "\r": "\\r",
    "\x1b": "\\x1b",
    "\x7f": "\\x7f",
    "\x85": "\\x85",
    "\x9b": "\\x9b",
    "\x9d": "\\x9d",
    "\u00ad": "\\xad",
    "\u200b": "\\u200b",
    "\u200e": "\\u200e",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    **{chr(code): f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    "\ufeff": "\\ufeff",
    "\ud83d": "\\ud83d",
    "\U000e0041": "\\U000e0041",
    "\U000e0100": "\\U000e0100",
}

KEPT = [
    "a line\n\tand another",
    "[red]no markup[/red] :smile: \\x1b",
    "naïve Ελληνικά 漢字\u3000かな\u00a0\u202f",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u06dd",  # Persian needs a joiner
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001fac6",  # so do emoji
    "\ue0b0",  # icons of fonts for terminals
]


@pytest.mark.parametrize(("character", "shown"), ESCAPED.items(), ids=ascii)
def test_what_controls_a_terminal_or_reorders_or_hides_text_is_shown_escaped(character: str, shown: str) -> None:
    assert printable(f"a{character}b") == printable_line(f"a{character}b") == f"a{shown}b"


@pytest.mark.parametrize("text", KEPT)
def test_text_stays(text: str) -> None:
    assert printable(text) == text


def test_a_line_stays_one_line() -> None:
    assert printable_line("name\nError: \tfake") == "name\\nError: \\tfake"
