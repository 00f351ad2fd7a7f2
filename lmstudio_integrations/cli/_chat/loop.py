"""The loop of a chat at a terminal, and one turn of it."""

import warnings
from collections.abc import Callable

from lmstudio_integrations.cli._chat.commands import QUOTES, is_command, run_command
from lmstudio_integrations.cli._chat.response import ChatResponse, stats_line
from lmstudio_integrations.cli._chat.session import ChatSession
from lmstudio_integrations.cli._errors import report
from lmstudio_integrations.cli._formatting import instance_name
from lmstudio_integrations.cli._wrapping import note
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioEvictionWarning,
    LMStudioPromptCacheWarning,
    LMStudioTruncationWarning,
)

PROMPT, PROMPT_INSIDE_QUOTES = "> ", ". "

ReadLine = Callable[[str], str]
"""Reads a line after a prompt; see `line_reader`."""


def converse(session: ChatSession, read_line: ReadLine, *, shows_stats: bool) -> None:
    """Respond to each message until Ctrl-D."""
    note(f"This is {instance_name(session.model.get_info())}. Ctrl-C stops a response, Ctrl-D ends the chat.")
    with warnings.catch_warnings():
        # The user may change to a model that replaces the one before, and may change the system prompt.
        warnings.simplefilter("ignore", LMStudioEvictionWarning)
        warnings.simplefilter("ignore", LMStudioPromptCacheWarning)
        while _run_line(session, read_line, shows_stats=shows_stats):
            pass


def _run_line(session: ChatSession, read_line: ReadLine, *, shows_stats: bool) -> bool:
    """Read a message or a command and respond to it; return whether the chat goes on."""
    try:
        line = read_line(PROMPT)
    except EOFError:
        return False
    except KeyboardInterrupt:
        note("Press Ctrl-D or type /bye to end the chat.")
        return True
    try:
        if is_command(line):
            run_command(session, line)
        elif message := whole_message(line, read_line):
            respond(session, message, shows_stats=shows_stats)
    except EOFError:
        return False
    except LMStudioError as error:
        for part in report(error).split("\n"):
            note(part)
    except KeyboardInterrupt:
        note("Stopped.")
    return True


def whole_message(line: str, read_line: ReadLine) -> str:
    """Return the message that a line begins: the line, or what stands in three quotes, on any number of lines."""
    line = line.rstrip()
    # A pasted program may begin with three quotes.
    if not line.startswith(QUOTES) or "\n" in line:
        return line
    lines, line = list[str](), line.removeprefix(QUOTES)
    while not line.endswith(QUOTES):
        lines.append(line)
        line = read_line(PROMPT_INSIDE_QUOTES).rstrip()
    return "\n".join([*lines, line.removesuffix(QUOTES)]).strip()


def respond(session: ChatSession, text: str, *, shows_stats: bool) -> ChatResponse:
    """Print the response to a message, then its stats, and how much of the conversation the model did not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LMStudioTruncationWarning)  # the chat prints a note instead
        response = session.respond(text)
    if response.stats is None:
        note("Stopped.")
        return response
    if shows_stats:
        note(f"({stats_line(response.stats)})")
    if response.stats.dropped_tokens:
        note(
            f"The context window is full: {response.stats.dropped_tokens:,} tokens of the conversation were dropped; "
            "/clear starts a new one."
        )
    return response
