"""How the commands write for people: sizes, times and long lines, untrusted texts, and errors.

An error has each part on its own line, with suggestions in terms of commands and options. Needs no extra.
"""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, TextIO

from pydantic_core import ErrorDetails, ValidationError

from lmstudio_integrations._support.text import one_line, printable
from lmstudio_integrations.errors import (
    LMStudioClientError,
    LMStudioError,
    LMStudioInsufficientResourcesError,
    LMStudioServerError,
    LMStudioTimeoutError,
)

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def model_size(count: int) -> str:
    """Return the size of a model on disk, such as `2.50 GB`; `-` if the server does not know it."""
    for unit, factor in _SIZES:
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B" if count else "-"


def wrapped(line: str, width: int | None, indent: int = 4) -> str:
    """Return a line in lines of at most this width, the further ones indented; without a width, as it is."""
    if width is None:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


class ProtectedTerminal:
    """Takes the place of a stream to a terminal, so that results, notes, logs, warnings and tracebacks are escaped.

    Args:
        stream: The stream.

    Attributes:
        rich_proxied_file: The stream, by the name under which rich looks for it: its consoles write control codes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped, and return how many characters that were."""
        return self.rich_proxied_file.write(printable(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def protect_terminals() -> None:
    """Protect stdout and stderr, if they are terminals, as long as this process runs.

    Pipes and files get UTF-8 also on Windows, whose default lacks most letters, and as our commands read files. What an
    encoding lacks is written with a backslash.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and stream.isatty():  # a process may have no such stream
            setattr(sys, name, ProtectedTerminal(stream))
        elif sys.platform == "win32" and "PYTHONIOENCODING" not in os.environ and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")


_ON_THE_WAY = (LMStudioClientError, LMStudioTimeoutError)
"""Errors on the way to the server, whose remedy follows a semicolon."""

_PARTS = r"\n  (?=(?:cause|tried|evicted before|suggestion|this is a container): |(?:model|preset|plugin|device) )"

_COMMANDS = (
    (r"\bpass api_token=", "pass --token"),
    (r"\bas api_token\b", "as --token"),
    (r"\bas host, or give them all to an adapter, such as ChatLMStudio\(host=\[…\]\)", "as --host"),
    (r"\bset host to\b", "set --host to"),
    (r"\bchoose another port\b", "choose another one with --port"),
    (r"\bpass its address\b", "pass it as --host"),
    (r", or pass an ssl_context that accepts it", ""),
    (r"\b(smaller|larger|with|with a) context_length\b", r"\1 --context-length"),
    (r"; load_policy='fit_any' evicts those without a TTL as well", ""),
    (r", or set load_policy='get_or_load', which loads it on first use", ""),
    (r", with client\.\w+\.unload\(.+?\) or an adapter's unload\(\)", " with `lms unload`"),
    (r"\bload_policy='explicit'", "`lms load`"),
    (
        r"\bload_policy='fit' unloads what must go for it, as far as that is not in use",
        "make room by `lms unload`",
    ),
    (r"(?:, (?:or )?)?\braise \w*timeout(?:, or set it to None)?", ""),
)
"""What programs do about an error, and what takes its place on the command line."""

_USAGE = (
    (r"'(--?[\w-]+)'", r"\1"),
    (r"\. Did you mean ", "; did you mean "),
    (r" \(Possible options: (.*)\)$", r"; did you mean \1?"),
    (r"^Got unexpected extra argument\(s\) \((.*)\)$", r"unexpected argument '\1'"),
)
"""What typer says about wrong usage, and how it is said here."""

_MEANINGS = {
    "int_parsing": "is not a whole number",
    "greater_than_equal": "is less than {ge}",
    "greater_than": "is not more than {gt}",
    "less_than_equal": "is more than {le}",
}
"""What is wrong with a value, by the type of pydantic's error, which typer passes on."""


def for_commands(suggestion: str) -> str:
    """Return a suggestion in terms of the command line."""
    for pattern, replacement in _COMMANDS:
        suggestion = re.sub(pattern, replacement, suggestion)
    return suggestion


def split_remedy(message: str) -> tuple[str, str | None]:
    """Return what has happened, and what follows a semicolon: what to do, in terms of the command line."""
    problem, _, suggestion = message.partition("; ")
    return one_line(problem), one_line(for_commands(suggestion)) or None


def parts_of(error: LMStudioError) -> list[str]:
    """Return what an error says: what has failed, then `cause: …`, `tried: …` and `suggestion: …`, if any.

    The errors of this side's own work, such as a wrong argument, have one part, with the remedy in it.
    """
    head, *more = re.split(_PARTS, str(error))
    more = [for_commands(part) if part.startswith(("suggestion: ", "this is ")) else part for part in more]
    if isinstance(error, LMStudioServerError) and error.title is not None:
        head = error.title if _plan_lines(error) else head.partition(" error: ")[2] or head
    else:
        problem, remedy = split_remedy(head)
        if remedy and isinstance(error, _ON_THE_WAY) and not more:
            head, more = problem, [f"suggestion: {remedy}"]
        else:
            head = "; ".join(filter(None, (problem, remedy)))
    return [one_line(part) for part in (head, *more)]


def report(error: LMStudioError) -> str:
    """Return the message of an error, with a line for each of its parts, and the table of its plan."""
    head, *more = parts_of(error)
    first, *rest = (wrapped(line, _width()) for line in (f"Error: {head}", *(f"  {part}" for part in more)))
    return "\n".join([first, *_plan_lines(error), *rest])


def _plan_lines(error: LMStudioError) -> list[str]:
    """Return the table of what fits and what does not, if an error has one."""
    plan = error.plan if isinstance(error, LMStudioInsufficientResourcesError) else None
    return [] if plan is None else [f"  {line}".rstrip() for line in str(plan).split("\n")]


def report_usage(error: Any) -> str:
    """Return what is wrong with the arguments of a command, in one line that names the command's help.

    Args:
        error: typer's `UsageError`.
    """
    if isinstance(error.__cause__, ValidationError):
        error.message = _wrong_value(error.__cause__.errors()[0]) or error.message
    problem = error.format_message().rstrip(".")
    for pattern, replacement in _USAGE:
        problem = re.sub(pattern, replacement, problem)
    see = " See" if problem.endswith("?") else "; see"
    path = error.ctx.command_path if error.ctx else "lmsi"
    return wrapped(f"Error: {problem[:1].lower()}{problem[1:]}{see} `{path} --help`", _width())


def _wrong_value(details: ErrorDetails) -> str:
    if details["type"] == "value_error":  # one of typer's own texts
        return details["msg"].removeprefix("Value error, ")
    meaning = _MEANINGS.get(details["type"], "")
    return meaning and f"{details['input']!r} {meaning.format(**details.get('ctx', {}))}"


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else None
