"""Questions to a person at a terminal. They are printed on stderr; without a terminal there are none."""

import sys
from collections.abc import Sequence
from typing import Literal

from lmstudio_integrations.cli._common import note


def has_terminal() -> bool:
    """Return whether a person can read a question and type the response."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def read_line(prompt: str) -> str:
    """Read a line that a person types.

    Raises:
        EOFError: After Ctrl-D.
    """
    try:
        print(prompt, end="", file=sys.stderr, flush=True)  # stdout contains only results
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        note("")  # the cursor is still behind the question
        raise
    if not line:
        raise EOFError
    return line.rstrip("\n")


def pick(question: str, choices: Sequence[str], default: int = 0) -> int:
    """Return the index of the choice that a person picks by its number.

    Args:
        question: What to pick.
        choices: The choices, one line each.
        default: The index that the return key means.

    Raises:
        EOFError: After Ctrl-D.
    """
    for number, choice in enumerate(choices, 1):
        note(f"{number:3}. {choice}")
    while True:
        typed = read_line(f"{question} [{default + 1}]: ").strip()
        if not typed:
            return default
        if typed.isdecimal() and 1 <= int(typed) <= len(choices):
            return int(typed) - 1
        note(f"Type a number from 1 to {len(choices)}; Ctrl-C cancels.")


def agrees(question: str, *, default: bool = False) -> bool:
    """Return whether a person agrees.

    Args:
        question: The question.
        default: What the return key means.

    Raises:
        EOFError: After Ctrl-D.
    """
    typed = read_line(f"{question} [{'Y/n' if default else 'y/N'}]: ").strip().lower()
    return typed in {"y", "yes"} if typed else default


def confirm(question: str) -> Literal["yes", "no", "always"]:
    """Return how a person answers a question; the first letter is enough. The return key means no.

    Raises:
        EOFError: After Ctrl-D.
    """
    while True:
        typed = read_line(f"{question} [y/N/a]: ").strip().lower() or "n"
        for answer in ("yes", "no", "always"):
            if answer.startswith(typed):
                return answer
        note("Type y for yes, n for no, or a for always; Ctrl-C cancels.")
