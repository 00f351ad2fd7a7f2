"""`chat`: a conversation on a terminal, one response in a pipe, and what stops them."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest

from lmstudio_integrations.cli._chat.commands import COMMANDS
from lmstudio_integrations.cli._chat.loop import converse
from lmstudio_integrations.cli._chat.response import cancelled_by_interrupt
from lmstudio_integrations.cli._chat.session import ChatSession, Transcript
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import Piped
from tests.cli.terminal import SCRIPT, TIMEOUT, Terminal, interrupt, needs_pty, on_terminal, started
from tests.support.gate import AT_THE_GATE, Gate

Talk = Callable[..., str]

KEY, OTHER = "vendor/talker", "vendor/other"
RULES: list[Mapping[str, Any]] = [
    {"when": {"last": "^held"}, "then": [{"text": "So far. "}, AT_THE_GATE, {"text": "Never."}]},
    {"when": {"last": "^silent"}, "then": [AT_THE_GATE, {"text": "Never."}]},
    {"when": {"last": "^puzzle"}, "then": [{"reasoning": "Two and two."}, {"text": "Four."}]},
    {"when": {"last": "^long"}, "then": [{"text": "Begun. "}, {"error": "the response is too long"}]},
    {"when": {"last": "^drop"}, "then": [{"text": "Begun. "}, {"fault": "drop"}]},
    {"then": [{"text": "You said {last}."}]},
]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with models; responses to `held` and `silent` never end, nor does a load of `stuck`."""
    entries = [
        ModelEntry(key=KEY, rules=tuple(RULES), context_length=200),
        ModelEntry(key=OTHER, rules=({"then": [{"text": "Other than {last}."}]},)),
        ModelEntry(key="embedder", kind="embedding"),
        ModelEntry(key="stuck", rules=({"when": {"load": True}, "then": [AT_THE_GATE]},)),
    ]
    with Emulator(entries, engines=Gate().engines()) as emulator:
        yield emulator


@contextlib.contextmanager
def chatting(server: Emulator, *arguments: str) -> Iterator[Terminal]:
    """Start a chat on a terminal, up to its first prompt."""
    with on_terminal("chat", KEY, "--host", server.address, *arguments) as terminal:
        terminal.wait_for("ends the chat.")
        terminal.wait_for("> ")
        yield terminal


def exchange(terminal: Terminal, message: str, expected: str) -> str:
    """Type a message, and return what is printed up to the next prompt."""
    terminal.type(f"{message}\n")
    return terminal.wait_for(expected) + terminal.wait_for("> ")


def roles(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in messages]


# In a pipe ----------------------------------------------------------------------------------------------------------


def test_a_text_in_a_pipe_gets_one_response(server: Emulator, piped: Piped) -> None:
    assert piped("chat", KEY, "--host", server.address, stdin="Hi\n") == (0, "You said Hi.\n", "")


def test_the_prompt_comes_before_the_text_of_the_pipe(server: Emulator, piped: Piped) -> None:
    piped("chat", KEY, "--host", server.address, "-p", "Summarize:", "-s", "Be brief.", stdin="A text.\n")
    (prediction,) = server.predictions
    assert roles(prediction.messages) == [("system", "Be brief."), ("user", "Summarize:\n\nA text.")]


def test_without_a_message_there_is_one_error(server: Emulator, piped: Piped) -> None:
    expected = "Error: there is no message; pipe a text, or use --prompt TEXT\n"
    assert piped("chat", KEY, "--host", server.address, stdin=" \n") == (1, "", expected)


def test_reasoning_is_not_part_of_the_output(server: Emulator, piped: Piped) -> None:
    assert piped("chat", KEY, "--host", server.address, stdin="puzzle") == (0, "Four.\n", "")


def test_stats_are_printed_on_request_and_not_on_stdout(server: Emulator, piped: Piped) -> None:
    _, out, err = piped("chat", KEY, "--host", server.address, "--stats", stdin="Hi")
    assert out == "You said Hi.\n"
    assert "tokens read" in err
    assert "tokens/s" in err


def test_without_a_name_the_loaded_model_responds(server: Emulator, piped: Piped) -> None:
    server.load(OTHER, identifier="mine")
    assert piped("chat", "--host", server.address, stdin="Hi")[1] == "Other than Hi.\n"
    assert [prediction.model for prediction in server.predictions] == ["mine"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], f"name a language model: stuck, {OTHER}, {KEY}"),
        (["vendor"], f"'vendor' matches 2 models; name one of them: {OTHER}, {KEY}"),
        (["tolker"], f"no downloaded model matches 'tolker'; did you mean '{KEY}'?"),
        (["embedder"], "'embedder' is an embedding model; `lmsi ls --llm` lists those that can chat"),
    ],
)
def test_a_name_that_means_no_single_language_model_is_an_error(
    server: Emulator, piped: Piped, names: list[str], expected: str
) -> None:
    assert piped("chat", *names, "--host", server.address, stdin="Hi") == (1, "", f"Error: {expected}\n")


def test_a_part_of_the_name_is_enough_and_the_time_to_live_is_that_of_the_loaded_model(
    server: Emulator, piped: Piped
) -> None:
    assert piped("chat", "talk", "--host", server.address, "--ttl", "77", stdin="Hi")[1] == "You said Hi.\n"
    assert [info.ttl_ms for info in server.loaded()] == [77_000]


def test_an_error_ends_a_pipe_with_status_1(server: Emulator, piped: Piped) -> None:
    status, out, err = piped("chat", KEY, "--host", server.address, stdin="long")
    assert (status, out) == (1, "Begun. \n")
    assert err.startswith("Error: ")
    assert "too long" in err


@pytest.mark.slow
def test_an_interrupt_in_a_pipe_stops_the_server_and_keeps_what_came(server: Emulator) -> None:
    with started("chat", KEY, "--host", server.address, "-p", "held") as process:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
        server.wait_for(lambda: bool(server.predictions) and server.predictions[0].fragments >= 2, timeout=TIMEOUT)
        assert interrupt(process) == (130, "So far. \n", "")
    server.wait_for(lambda: server.predictions[0].stop_reason == "userStopped")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="closes stdin as POSIX shells do")
def test_a_prompt_is_enough_without_any_stdin(server: Emulator) -> None:
    command = f"{sys.executable} -c '{SCRIPT}' chat {KEY} -p Hi --host {server.address} <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said Hi.\n", "")


# On a terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_pty
def test_a_conversation_goes_on_until_ctrl_d(server: Emulator) -> None:
    with chatting(server, "--system-prompt", "Be brief.") as terminal:
        assert "tokens/s" in exchange(terminal, "One", "You said One.")
        exchange(terminal, "Two", "You said Two.")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert roles(server.predictions[1].messages) == [
        ("system", "Be brief."),
        ("user", "One"),
        ("assistant", "You said One."),
        ("user", "Two"),
    ]


@pytest.mark.slow
@needs_pty
def test_a_pasted_text_is_one_message(server: Emulator) -> None:
    with chatting(server) as terminal:
        terminal.type("\x1b[200~One\r  two\rthree\x1b[201~")
        terminal.wait_for(". three")
        terminal.type(" four\n")
        terminal.wait_for("You said")
        terminal.wait_for("> ")
        terminal.type("not this\x03")
        exchange(terminal, "but this", "You said but this.")
    assert roles(server.predictions[-1].messages)[::2] == [("user", "One\n  two\nthree four"), ("user", "but this")]


@pytest.mark.slow
@needs_pty
def test_ctrl_c_at_the_prompt_says_how_to_end_the_chat(server: Emulator) -> None:
    with chatting(server) as terminal:
        terminal.type("\x03")
        terminal.wait_for("Press Ctrl-D or type /bye to end the chat.")
        exchange(terminal, "Hi", "You said Hi.")
        terminal.type("/bye\n")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.text


@pytest.mark.slow
@needs_pty
def test_ctrl_c_stops_a_response_and_it_stays_as_far_as_it_came(server: Emulator) -> None:
    with chatting(server) as terminal:
        terminal.type("held\n")
        terminal.wait_for("So far. ")
        terminal.type("\x03")
        assert "stopped" in terminal.wait_for("> ")
        server.wait_for(lambda: server.predictions[0].stop_reason == "userStopped")
        exchange(terminal, "Next", "You said Next.")
    assert roles(server.predictions[1].messages) == [
        ("user", "held"),
        ("assistant", "So far. "),
        ("user", "Next"),
    ]


@pytest.mark.slow
@needs_pty
def test_a_turn_that_is_stopped_before_its_first_word_is_forgotten(server: Emulator) -> None:
    with chatting(server) as terminal:
        terminal.type("silent\n")
        server.wait_for(lambda: bool(server.predictions), timeout=TIMEOUT)
        terminal.type("\x03")
        terminal.wait_for("> ")
        exchange(terminal, "Next", "You said Next.")
    assert roles(server.predictions[1].messages) == [("user", "Next")]


@pytest.mark.slow
@needs_pty
@pytest.mark.parametrize("message", ["drop", pytest.param("full " * 250, id="too long for the context window")])
def test_an_error_is_one_line_and_the_conversation_is_what_it_was(server: Emulator, message: str) -> None:
    with chatting(server) as terminal:
        exchange(terminal, "One", "You said One.")
        printed = exchange(terminal, message, "Error: ")
        assert "Traceback" not in printed
        exchange(terminal, "Two", "You said Two.")
    assert roles(server.predictions[-1].messages) == [
        ("user", "One"),
        ("assistant", "You said One."),
        ("user", "Two"),
    ]


@pytest.mark.slow
@needs_pty
def test_ctrl_c_stops_a_load_and_the_model_stays(server: Emulator) -> None:
    with chatting(server) as terminal:
        terminal.type("/model stuck\n")
        server.wait_for(lambda: len(server.loads) == 2, timeout=TIMEOUT)
        terminal.type("\x03")
        terminal.wait_for("Stopped.")
        server.wait_for(lambda: server.loads[1].state == "cancelled")
        terminal.wait_for("> ")
        exchange(terminal, "One", "You said One.")


class Stream:
    """Counts how often it is cancelled."""

    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_second_ctrl_c_does_not_wait_for_the_server() -> None:
    stream, before = Stream(), signal.getsignal(signal.SIGINT)
    with cancelled_by_interrupt(cast("Any", stream)):
        signal.raise_signal(signal.SIGINT)
        assert stream.cancelled == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stream.cancelled == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    stream, before = Stream(), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with cancelled_by_interrupt(cast("Any", stream)):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stream.cancelled == 0


@pytest.mark.slow
@needs_pty
def test_a_server_that_is_gone_is_an_error_and_the_chat_goes_on(server: Emulator) -> None:
    with chatting(server) as terminal:
        exchange(terminal, "One", "You said One.")
        server.stop()
        exchange(terminal, "Two", "Error: ")
        terminal.type("/exit\n")
        assert terminal.wait() == 0


@pytest.mark.slow
@needs_pty
def test_reasoning_is_dim(server: Emulator) -> None:
    with chatting(server) as terminal:
        exchange(terminal, "puzzle", "Four.")
        assert "Reasoning: Two and two." in terminal.text
        assert "\x1b[2mReasoning: " in terminal.raw
    assert roles(server.predictions[0].messages) == [("user", "puzzle")]


@pytest.mark.slow
@needs_pty
def test_a_prompt_on_a_terminal_gets_one_response(server: Emulator) -> None:
    with on_terminal("chat", KEY, "-p", "Hi", "--host", server.address) as terminal:
        assert terminal.wait() == 0
    assert "You said Hi." in terminal.text
    assert "tokens/s" not in terminal.text


@pytest.mark.slow
@needs_pty
def test_the_stats_can_be_switched_off(server: Emulator) -> None:
    with chatting(server, "--no-stats") as terminal:
        assert "tokens/s" not in exchange(terminal, "Hi", "You said Hi.")


@pytest.mark.slow
@needs_pty
def test_loading_shows_a_bar_on_a_terminal(server: Emulator) -> None:
    with chatting(server) as terminal:
        assert f"Loading {KEY}" in terminal.text
    with chatting(server) as terminal:
        assert "Loading" not in terminal.text


@pytest.mark.slow
@needs_pty
def test_without_a_name_or_with_an_ambiguous_one_the_user_picks_a_model(server: Emulator) -> None:
    with on_terminal("chat", "--host", server.address) as terminal:
        terminal.wait_for(OTHER)
        terminal.wait_for("Model [1]: ")
        terminal.type("7\n")
        terminal.wait_for("Type a number from 1 to 3; Ctrl-C cancels.")
        terminal.type("2\n")
        terminal.wait_for("> ")
        exchange(terminal, "Hi", "Other than Hi.")
        terminal.type("/model vendor\n")
        terminal.wait_for("Model [1]: ")
        terminal.type("\x03")
        terminal.wait_for("^C\nStopped.\n")
        terminal.type("/model vendor\n")
        terminal.wait_for("Model [1]: ")
        terminal.type("2\n")
        exchange(terminal, "Hi", "You said Hi.")


# The commands in a chat ---------------------------------------------------------------------------------------------


@pytest.fixture
def talk(server: Emulator, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Run a chat in which the user types some lines, and return what it prints on stderr.

    A `KeyboardInterrupt` is Ctrl-C.
    """

    def run(*lines: str | type[BaseException]) -> str:
        typed = iter(lines)

        def read_line(_prompt: str) -> str:
            line = next(typed, EOFError)
            if isinstance(line, str):
                return line
            raise line

        with Client(server.address) as client:
            converse(ChatSession(client, client.llm.model(KEY), Transcript()), read_line, shows_stats=False)
        return capsys.readouterr().err

    return run


def test_the_model_changes_and_the_conversation_stays(server: Emulator, talk: Talk) -> None:
    printed = talk("One", f"/model {OTHER}", "Two")
    assert f"Loading {OTHER} evicted {KEY} (Auto-Evict).\nThe model is {OTHER}.\n" in printed
    last = server.predictions[-1]
    assert last.model == OTHER
    assert roles(last.messages) == [("user", "One"), ("assistant", "You said One."), ("user", "Two")]


def test_an_instance_with_another_name_is_shown_with_its_key(server: Emulator, talk: Talk) -> None:
    server.load(OTHER, identifier="mine")
    printed = talk("/model other")
    assert f"The model is mine ({OTHER})." in printed
    assert "evicted" not in printed


def test_the_models_are_listed_with_the_current_one(talk: Talk) -> None:
    assert talk("/model").splitlines()[1:4] == ["  stuck", f"  {OTHER}", f"* {KEY} (loaded)"]


def test_an_unknown_model_changes_nothing(server: Emulator, talk: Talk) -> None:
    assert f"did you mean '{KEY}'?" in talk("/model tolker", "One")
    assert server.predictions[0].model == KEY


def test_the_system_prompt_changes_and_the_conversation_stays(server: Emulator, talk: Talk) -> None:
    printed = talk("One", "/system", "/system Be brief.", "Two")
    assert "The system prompt is: none" in printed
    assert "The system prompt is: Be brief." in printed
    assert roles(server.predictions[-1].messages)[:2] == [("system", "Be brief."), ("user", "One")]
    assert "The system prompt is: none" in talk("/system Be brief.", "/system none", "One")
    assert roles(server.predictions[-1].messages) == [("user", "One")]


def test_a_cleared_conversation_is_empty(server: Emulator, talk: Talk) -> None:
    assert "Started a new conversation." in talk("One", "/clear", "Two")
    assert roles(server.predictions[-1].messages) == [("user", "Two")]


def test_a_conversation_that_no_longer_fits_is_cut_but_not_in_silence(talk: Talk) -> None:
    printed = talk("One", *["so much to say " * 12] * 3)
    assert "The context window is full: " in printed
    assert "tokens of the conversation were dropped; /clear starts a new one." in printed
    assert "dropped" not in talk("One", "Two")


def test_stats_are_a_table_with_units_in_words(talk: Talk) -> None:
    before, _, after = talk("/stats", "One", "/stats").partition("There are no stats yet.\n")
    assert "Prompt" not in before
    rows = [re.split(" {2,}", line.strip()) for line in after.splitlines()]
    assert [name for name, _ in rows] == ["Prompt", "Response", "Speed", "First token after", "Total time", "End"]
    shown = [re.sub(r"[\d.,]+", "1", value) for _, value in rows]
    assert shown == [
        "1 tokens",
        "1 tokens",
        "1 tokens per second",
        "1 seconds",
        "1 seconds",
        "complete",
    ]


def test_without_tools_the_command_says_how_to_get_some(talk: Talk) -> None:
    assert "There are no tools; `lmsi chat --tools PLUGIN` has those of a plugin.\n" in talk("/tools")


@pytest.mark.parametrize("typed", ["/help", "/?"])
def test_help_lists_all_commands(talk: Talk, typed: str) -> None:
    printed = talk(typed)
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("typed", "suggestion"), [("/sistem Be brief.", "did you mean /system?"), ("/etc/hosts", "/? lists the commands.")]
)
def test_an_unknown_command_is_no_message(server: Emulator, talk: Talk, typed: str, suggestion: str) -> None:
    assert talk(typed).endswith(f"There is no command {typed.split(maxsplit=1)[0]}; {suggestion}\n")
    assert not server.predictions


@pytest.mark.parametrize("typed", ["/exit", "/bye", "/quit", "exit", " Quit "])
def test_nothing_after_an_exit_is_read(server: Emulator, talk: Talk, typed: str) -> None:
    talk("How do I quit?", typed, "Two")
    assert len(server.predictions) == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (['"""', "One", "  two", '"""'], "One\n  two"),
        (['"""One', "", 'two""" '], "One\n\ntwo"),
        (['"""/etc/hosts"""'], "/etc/hosts"),
        (['"""', "One\ntwo", 'exit"""'], "One\ntwo\nexit"),
        (["/etc/hosts\n/etc/passwd\n"], "/etc/hosts\n/etc/passwd"),
        (['"""A module."""\nimport this'], '"""A module."""\nimport this'),
        (['"""', "never sent", KeyboardInterrupt, "One"], "One"),
    ],
)
def test_a_message_has_several_lines(
    server: Emulator, talk: Talk, typed: list[str | type[BaseException]], message: str
) -> None:
    talk(*typed)
    assert [roles(each.messages) for each in server.predictions] == [[("user", message)]]


def test_an_empty_line_is_no_message(server: Emulator, talk: Talk) -> None:
    talk("", "  ")
    assert not server.predictions
