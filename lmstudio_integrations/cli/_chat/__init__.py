"""`chat`: a conversation at the terminal, or one response in a pipe."""

import sys
from typing import Annotated

import typer

from lmstudio_integrations.cli._common import Host, OnDevice, Token, Ttl, warnings_as_notes
from lmstudio_integrations.cli._completion import llm_names
from lmstudio_integrations.errors import LMStudioValueError


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Key or identifier. By default the loaded model that was used last.",
            show_default=False,
            autocompletion=llm_names,
        ),
    ] = None,
    *,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Print the response to this and quit.", show_default=False),
    ] = None,
    system_prompt: Annotated[
        str | None,
        typer.Option("--system-prompt", "-s", metavar="TEXT", help="Instructions for the model.", show_default=False),
    ] = None,
    ttl: Ttl = None,
    stats: Annotated[
        bool | None,
        typer.Option(
            "--stats/--no-stats",
            help="Print speed and token counts after each response (default: in a conversation only).",
            show_default=False,
        ),
    ] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLUGIN[=PREFIX]",
            help="Let the model call the tools of a plugin, such as mcp/weather. May be repeated.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before each call of a tool.")] = False,
    device: OnDevice = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Chat with a model.

    At a terminal this is a conversation: /? lists its commands, Ctrl-C stops a response, Ctrl-D ends the chat.
    A text in a pipe is one message, and the response is printed.
    """
    from lmstudio_integrations.cli._chat.loop import converse, respond  # noqa: PLC0415 - slow
    from lmstudio_integrations.cli._chat.session import ChatSession, Transcript  # noqa: PLC0415
    from lmstudio_integrations.cli._chat.tools import open_tools  # noqa: PLC0415
    from lmstudio_integrations.cli._loaded_models import open_llm  # noqa: PLC0415
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    text = whole_message(prompt)
    with (
        Client(host, token) as client,
        warnings_as_notes(),
        open_tools(client, tools or (), yes=yes) as chat_tools,
    ):
        handle = open_llm(client, model, ttl, device)
        session = ChatSession(client, handle, Transcript(system_prompt), ttl, device, chat_tools)
        if text is None:
            from lmstudio_integrations.cli._chat.prompt import line_reader  # noqa: PLC0415 - slow

            converse(session, line_reader(), shows_stats=stats is not False)
        elif respond(session, text, shows_stats=bool(stats)).stopped:
            raise KeyboardInterrupt


def whole_message(prompt: str | None) -> str | None:
    """Return the only message of this run: the prompt, then what a pipe contains; `None` for a conversation.

    Raises:
        LMStudioValueError: If the message is empty.
    """
    if sys.stdin and sys.stdin.isatty():
        return prompt or None
    # A process may have no stdin at all.
    piped = sys.stdin.buffer.read().decode(sys.stdin.encoding, errors="replace").rstrip() if sys.stdin else ""
    message = "\n\n".join(part for part in (prompt, piped) if part)
    if not message:
        raise LMStudioValueError("there is no message; pipe a text, or use --prompt TEXT")
    return message
