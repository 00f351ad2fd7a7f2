"""Reads what a user types in a chat. Used by `chat` only, since prompt_toolkit takes long to import."""

import os
import sys
from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.output import create_output

from lmstudio_integrations.cli._chat.loop import PROMPT, PROMPT_INSIDE_QUOTES


def line_reader() -> Callable[[str], str]:
    """Return a function that reads a line after a prompt, with editing and a history.

    A pasted text is one line, although it contains line breaks. The function raises `EOFError` after Ctrl-D, and
    `KeyboardInterrupt` after Ctrl-C, which only discards a message that has been begun.
    """
    # Asking the terminal where the cursor is helps with menus only, and takes time where the terminal does not answer.
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    # Not the protected streams, which escape the codes of the editor.
    terminals = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None and stream.isatty()]
    session = PromptSession[str](output=create_output(next(iter(terminals), sys.__stderr__)), enable_suspend=True)

    def read(prompt: str) -> str:
        try:
            return session.prompt(
                prompt,
                placeholder=_hint if prompt == PROMPT else None,
                # A line that the terminal wraps is still the same line of the message.
                prompt_continuation=lambda _width, _line, wraps: "" if wraps else PROMPT_INSIDE_QUOTES,
            )
        except KeyboardInterrupt:
            if prompt == PROMPT and session.default_buffer.text:
                return ""
            raise

    return read


def _hint() -> FormattedText:
    """Return what an empty line shows. What stays on the screen after Ctrl-D shows nothing."""
    return FormattedText([] if get_app().is_done else [("fg:ansibrightblack", "Send a message (/? for help)")])
