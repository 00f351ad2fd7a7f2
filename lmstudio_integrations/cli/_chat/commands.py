"""What a user types in a chat that is no message."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._chat.response import stats_table
from lmstudio_integrations.cli._chat.session import ChatSession
from lmstudio_integrations.cli._formatting import instance_name
from lmstudio_integrations.cli._loaded_models import downloaded_models, loaded_models, open_llm
from lmstudio_integrations.cli._wrapping import note


class ChatCommand(NamedTuple):
    """A command: how to type it, what it does, and the function that does it, given what was typed after the name."""

    usage: str
    help: str
    run: Callable[[ChatSession, str], Any]


def is_command(text: str) -> bool:
    """Return whether a text is a command. A pasted text of several lines never is."""
    return text.strip().lower() in ALIASES or (text.startswith("/") and "\n" not in text)


def run_command(session: ChatSession, line: str) -> None:
    """Run a command.

    Raises:
        EOFError: If it ends the chat.
    """
    name, _, argument = line.strip().partition(" ")
    command = COMMANDS.get(ALIASES.get(name.lower(), name.lower()))
    if command is None:
        similar = closest_names(name, [*COMMANDS, *ALIASES], cutoff=0.7)
        note(f"There is no command {name}; {f'did you mean {similar[0]}?' if similar else '/? lists the commands.'}")
        return
    command.run(session, argument.strip())


def _print_help(_session: ChatSession, _argument: str) -> None:
    for usage, description in [(each.usage, each.help) for each in COMMANDS.values()] + OTHER_KEYS:
        note(f"  {usage:<15} {description}")


def _change_model(session: ChatSession, name: str) -> None:
    if name:
        session.model = open_llm(session.client, name, session.ttl, session.device)
        note(f"The model is {instance_name(session.model.get_info())}.")
        return
    identifiers: dict[str, list[str]] = {}
    for instance in loaded_models(session.client, "llm"):
        identifiers.setdefault(instance.model_key, []).append(instance.identifier)
    for info in downloaded_models(session.client, "llm"):
        for identifier in identifiers.pop(info.model_key, [""]):
            sign = "*" if identifier == session.model.identifier else " "
            note(f"{sign} {identifier} (loaded)" if identifier else f"  {info.model_key}")


def _change_system_prompt(session: ChatSession, text: str) -> None:
    if text:
        session.conversation.system_prompt = None if text == "none" else text
    note(f"The system prompt is: {session.conversation.system_prompt or 'none'}")


def _print_tools(session: ChatSession, _argument: str) -> None:
    if session.tools is None:
        note("There are no tools; `lmsi chat --tools PLUGIN` has those of a plugin.")
        return
    for tool in session.tools.tools:
        note(f"  {tool.name:<15} {one_line(tool.description)}")


def _clear(session: ChatSession, _argument: str) -> None:
    session.conversation.messages.clear()
    note("Started a new conversation.")


def _print_stats(session: ChatSession, _argument: str) -> None:
    if session.last_stats is None:
        note("There are no stats yet.")
        return
    for name, value in stats_table(session.last_stats):
        note(f"  {name:<20} {value}")


def _end(_session: ChatSession, _argument: str) -> None:
    raise EOFError


COMMANDS = {
    "/help": ChatCommand("/?, /help", "List the commands.", _print_help),
    "/model": ChatCommand("/model [KEY]", "Change the model, or list all.", _change_model),
    "/system": ChatCommand("/system [TEXT]", "Set or show the system prompt; none removes it.", _change_system_prompt),
    "/tools": ChatCommand("/tools", "List the tools of the model.", _print_tools),
    "/clear": ChatCommand("/clear", "Start a new conversation.", _clear),
    "/stats": ChatCommand("/stats", "Stats of the last response.", _print_stats),
    "/exit": ChatCommand("/bye, /exit", "End the chat.", _end),
}
"""The commands, by name."""

ALIASES = {"/?": "/help", "/bye": "/exit", "/quit": "/exit", "exit": "/exit", "quit": "/exit"}
"""Other names of commands."""

QUOTES = '"""'

OTHER_KEYS = [
    (QUOTES, "Begin or end a long message."),
    ("Ctrl-C", "Stop a response."),
    ("Ctrl-D", "End the chat."),
]
"""What else `/help` lists, with what it does."""
