"""The loop of a chat at a terminal, and one turn of it."""

import warnings

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._chat.commands import run_command
from lmstudio_integrations.cli._chat.response import ChatResponse, stats_line
from lmstudio_integrations.cli._chat.session import ChatSession
from lmstudio_integrations.cli._common import note
from lmstudio_integrations.cli._questions import read_line
from lmstudio_integrations.errors import LMStudioError, LMStudioEvictionWarning, LMStudioTruncationWarning

PROMPT = "> "


def converse(session: ChatSession, *, shows_stats: bool) -> None:
    """Respond to each line until Ctrl-D, or Ctrl-C at the prompt."""
    note(
        f"This is {session.model.identifier}. /help lists the commands; Ctrl-C stops a response, Ctrl-D ends the chat."
    )
    with warnings.catch_warnings():
        # A model that the user changes to may replace the one before.
        warnings.simplefilter("ignore", LMStudioEvictionWarning)
        while _run_line(session, shows_stats=shows_stats):
            pass


def _run_line(session: ChatSession, *, shows_stats: bool) -> bool:
    """Read a line and respond to it; return whether the chat goes on."""
    try:
        line = read_line(PROMPT)
    except (EOFError, KeyboardInterrupt):
        note("")
        return False
    try:
        if line.startswith("/"):
            run_command(session, line)
        elif line and not line.isspace():
            respond(session, line, shows_stats=shows_stats)
    except EOFError:
        return False
    except LMStudioError as error:
        note(f"Error: {one_line(error)}")
    except KeyboardInterrupt:
        note("Stopped.")
    return True


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
            "/clear begins a new one."
        )
    return response
