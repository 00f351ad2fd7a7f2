"""`chat --tools`: which calls of tools run, what is shown of them, and what the conversation keeps."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from lmstudio_integrations import ToolCallContext
from lmstudio_integrations.cli._chat import tools as chat_tools
from lmstudio_integrations.cli._chat.loop import converse
from lmstudio_integrations.cli._chat.session import ChatSession, Transcript
from lmstudio_integrations.cli._chat.tools import open_tools
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from tests.cli.terminal import TIMEOUT, needs_pty, on_terminal
from tests.support.gate import AT_THE_GATE, Gate

Typed = str | type[BaseException]
Talk = Callable[..., tuple[str, str]]
Run = Callable[..., int | str | None]

KEY, PLUGIN, OTHER = "vendor/talker", "mcp/sums", "mcp/more-sums"
ADD: Mapping[str, Any] = {"tool": "add", "arguments": {"a": 1, "b": 2}}
RULES: list[Mapping[str, Any]] = [
    {"when": {"role": "tool", "last": "held"}, "then": [{"text": "So far. "}, AT_THE_GATE, {"text": "Never."}]},
    {"when": {"role": "tool", "last": "API key"}, "then": [{"error": "the response is too long"}]},
    {"when": {"role": "tool"}, "then": [{"text": "It is {last}."}]},
    {"when": {"last": "^add"}, "then": [{"text": "Let me see."}, ADD]},
    {"when": {"last": "^twice"}, "then": [ADD, ADD]},
    {"when": {"last": "^wrong"}, "then": [{"tool": "add", "arguments": {"a": "x"}}]},
    *({"when": {"last": f"^{name}"}, "then": [{"tool": name}]} for name in ("hold", "fail", "wait", "more_add")),
    {"then": [{"text": "You said {last}."}]},
]
SHOWN = 'Tool call: add {"a": 1, "b": 2}\n'
QUESTION = "Run it? [y/N/a]: "


def add(a: int = 3, b: int = 4) -> int:
    """Add two numbers.

    They are integers.
    """
    return a + b


def hold() -> str:
    """Return a word after which the model never ends."""
    return "held"


def fail() -> None:
    """Fail."""
    raise ValueError("no API key")


async def wait(ctx: ToolCallContext) -> None:
    """Wait, and say so."""
    ctx.status("waiting")
    ctx.warn("no end in sight")
    await asyncio.Event().wait()


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a model that calls tools, and two plugins that have a tool of the same name."""
    plugins: dict[str, list[Callable[..., Any]]] = {PLUGIN: [add, hold, fail, wait], OTHER: [add]}
    with Emulator([ModelEntry(key=KEY, rules=tuple(RULES))], engines=Gate().engines(), plugins=plugins) as emulator:
        yield emulator


@pytest.fixture
def talk(server: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Run a chat with tools in which the user types some lines and answers; return what it prints on both streams."""

    def typing(typed: Iterator[Typed]) -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    def run(*lines: str, answers: tuple[Typed, ...] = (), yes: bool = False) -> tuple[str, str]:
        typed, answered = iter(lines), iter(answers)
        terminal = SimpleNamespace(isatty=lambda: True, readline=lambda: f"{typing(answered)}\n")
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(chat_tools, "has_terminal", lambda: True)
        with Client(server.address) as client, open_tools(client, [PLUGIN], yes=yes) as tools:
            session = ChatSession(client, client.llm.model(KEY), Transcript(), tools=tools)
            converse(session, lambda _prompt: typing(typed), shows_stats=False)
        assert not list(answered)
        return capsys.readouterr()

    return run


def last_messages(server: Emulator) -> list[tuple[str, Any]]:
    return [(each["role"], each["content"]) for each in server.predictions[-1].messages]


def results(server: Emulator) -> list[Any]:
    return [(call.tool, call.result) for call in server.tool_calls]


@pytest.mark.parametrize("answer", ["y", "Yes "])
def test_a_call_that_the_user_allows_is_shown_and_runs(server: Emulator, talk: Talk, answer: str) -> None:
    out, err = talk("add", answers=(answer,))
    assert out == "Let me see.\nIt is 3.\n"
    assert SHOWN + QUESTION in err
    assert results(server) == [("add", 3)]


@pytest.mark.parametrize("answer", ["", "n", "No"])
def test_a_call_that_the_user_denies_does_not_run_and_the_model_knows(
    server: Emulator, talk: Talk, answer: str
) -> None:
    out, _ = talk("add", answers=(answer,))
    assert out == 'Let me see.\nIt is {"error": "The user denied this tool call."}.\n'
    assert not results(server)


def test_another_answer_is_asked_for_again(server: Emulator, talk: Talk) -> None:
    _, err = talk("add", answers=("yup", "y"))
    assert f"{QUESTION}Type y for yes, n for no, or a for always; Ctrl-C cancels.\n{QUESTION}" in err
    assert results(server) == [("add", 3)]


@pytest.mark.parametrize(
    ("answers", "calls"), [(("a",), ["add"] * 3), (("y", "n", "y"), ["add"] * 2), (("n", "a"), ["add"] * 2)]
)
def test_always_is_true_of_the_later_calls_of_the_tool(
    server: Emulator, talk: Talk, answers: tuple[str, ...], calls: list[str]
) -> None:
    _, err = talk("twice", "add", answers=answers)
    assert [name for name, _ in results(server)] == calls
    assert (err.count(SHOWN), err.count(QUESTION)) == (3, len(answers))


def test_always_is_not_true_of_other_tools(server: Emulator, talk: Talk) -> None:
    talk("add", "fail", answers=("a", "n"))
    assert results(server) == [("add", 3)]


def test_with_yes_nothing_is_asked(server: Emulator, talk: Talk) -> None:
    _, err = talk("add", yes=True)
    assert SHOWN in err
    assert QUESTION not in err
    assert results(server) == [("add", 3)]


def test_the_conversation_keeps_calls_and_results(server: Emulator, talk: Talk) -> None:
    talk("add", "Next", "/clear", "Again", yes=True)
    before, after = server.predictions[-2:]
    request = {"type": "function", "id": before.messages[1]["content"][1]["toolCallRequest"]["id"], "name": "add"}
    result = {"type": "toolCallResult", "content": "3", "toolCallId": request["id"], "name": "add"}
    call = {"type": "toolCallRequest", "toolCallRequest": {**request, "arguments": {"a": 1, "b": 2}}}
    assert before.messages == [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, call]},
        {"role": "tool", "content": [result]},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "Next"},
    ]
    assert after.messages == [{"role": "user", "content": "Again"}]


def test_ctrl_c_at_the_question_stops_the_response_and_its_text_stays(server: Emulator, talk: Talk) -> None:
    out, err = talk("add", "Next", answers=(KeyboardInterrupt,))
    assert out == "Let me see.\nYou said Next.\n"
    assert "Stopped.\n" in err
    assert last_messages(server) == [("user", "add"), ("assistant", "Let me see."), ("user", "Next")]
    assert not results(server)


def test_ctrl_d_at_the_question_ends_the_chat(server: Emulator, talk: Talk) -> None:
    talk("add", "Next", answers=(EOFError,))
    assert len(server.predictions) == 1
    assert not results(server)


def test_a_failure_is_printed_and_after_an_error_the_conversation_is_what_it_was(server: Emulator, talk: Talk) -> None:
    _, err = talk("fail", "Next", yes=True)
    failure, problem = "Warning: Tool 'fail' error: no API key\n", "Error: the response is too long\n"
    assert f"Tool call: fail {{}}\n{failure}{problem}" in err
    assert last_messages(server) == [("user", "Next")]


def test_a_call_with_wrong_arguments_is_not_asked_for(server: Emulator, talk: Talk) -> None:
    _, err = talk("wrong")
    assert "Warning: Failed to parse arguments for tool add: a: 'x' is not of type 'integer'\n" in err
    assert "Tool call" not in err
    assert not results(server)


def test_the_tools_are_listed(talk: Talk) -> None:
    assert (
        "\n  add             Add two numbers. They are integers.\n  hold            Return a word " in talk("/tools")[1]
    )


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(
    server: Emulator, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int | str | None, str, str]]:
    """Run the command without a terminal; return its exit status or error, and what it printed."""
    monkeypatch.setattr(sys, "stdin", None)

    def run_it(*arguments: str) -> tuple[int | str | None, str, str]:
        status = run("chat", KEY, *arguments, "--host", server.address)
        return status, *capsys.readouterr()

    return run_it


def test_only_the_text_is_on_stdout(chat: Callable[..., Any]) -> None:
    assert chat("-p", "add", "--tools", PLUGIN, "--yes") == (0, "Let me see.\nIt is 3.\n", SHOWN)


def test_a_prefix_keeps_the_tools_of_two_plugins_apart(server: Emulator, chat: Callable[..., Any]) -> None:
    status, out, _ = chat("-p", "more_add", "-y", "--tools", PLUGIN, "--tools", f"{OTHER}=more_")
    assert (status, out) == (0, "It is 7.\n")
    assert [call.plugin for call in server.tool_calls] == [OTHER]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--tools", PLUGIN], "not a terminal, so cannot ask before each call of a tool; use --yes to run them all"),
        (["--yes", "--tools", PLUGIN, "--tools", "mcp/sum"], 'Cannot find a plugin with the identifier "mcp/sum"'),
        (
            ["--yes", "--tools", PLUGIN, "--tools", OTHER],
            (
                f"'{PLUGIN}' and '{OTHER}' both have a tool 'add'; give one of them a prefix, for example "
                "--tools PLUGIN=more-sums_"
            ),
        ),
    ],
)
def test_tools_that_cannot_be_used_are_an_error_before_anything_is_loaded(
    server: Emulator, chat: Callable[..., Any], arguments: list[str], error: str
) -> None:
    status, out, _ = chat("-p", "Hi", *arguments)
    assert isinstance(status, str), "the exit status is 1"
    assert (status.partition("\n")[0], out) == (f"Error: {error}", "")
    assert not server.loads


def test_plugins_without_tools_are_an_error(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    empty = contextlib.nullcontext(SimpleNamespace(tools=[]))
    monkeypatch.setattr(chat_tools, "tool_session", lambda *_arguments: empty)
    with (
        Client(nobody) as client,
        pytest.raises(LMStudioValueError, match="there are no tools in a, b"),
        open_tools(client, ["a", "b=c"], yes=True),
    ):
        pass


@pytest.mark.slow
@needs_pty
def test_ctrl_c_aborts_a_call_or_ends_the_text_after_it(server: Emulator) -> None:
    with on_terminal("chat", KEY, "--tools", PLUGIN, "--host", server.address) as terminal:
        terminal.wait_for("> ")
        terminal.type("wait\n")
        terminal.wait_for(f"Tool call: wait {{}}\n{QUESTION}")
        terminal.type("y\n")
        terminal.wait_for("wait: waiting\n")
        terminal.wait_for("Warning: wait: no end in sight\n")
        terminal.type("\x03")
        terminal.wait_for("Stopped.\n")
        server.wait_for(lambda: server.tool_calls[0].state == "aborted", timeout=TIMEOUT)
        terminal.wait_for("> ")
        terminal.type("hold\n")
        terminal.wait_for(QUESTION)
        terminal.type("a\n")
        terminal.wait_for("So far. ")
        terminal.type("\x03")
        terminal.wait_for("Stopped.\n")
        server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped", timeout=TIMEOUT)
        terminal.wait_for("> ")
        terminal.type("Next\n")
        terminal.wait_for("You said Next.")
        assert "\x1b[2mwait: waiting" in terminal.raw
    assert [role for role, _ in last_messages(server)] == ["user", "assistant", "tool", "assistant", "user"]
    assert last_messages(server)[3:] == [("assistant", "So far. "), ("user", "Next")]
