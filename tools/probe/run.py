"""Asks the server, and writes the cassette."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from websockets.exceptions import WebSocketException

from lmstudio_integrations.cassettes import Recording
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError
from tools.probe import connecting, loading, predicting, reasoning
from tools.probe.context import PREFIX, ProbeContext
from tools.probe.question import Question

QUESTIONS = (*loading.QUESTIONS, *predicting.QUESTIONS, *reasoning.QUESTIONS, *connecting.QUESTIONS)
"""In the order in which they are asked: the first one loads the instance that most of the others use."""

NO_PLUGIN = "lmsi-probe/no-such-plugin"
"""The plugin whose tools are listed, unless the user names one."""

_EXPECTED = (LMStudioError, OSError, WebSocketException)
"""What a server that rejects a request, closes a connection or does not respond raises."""


def describe_calls(model_key: str, server: str) -> str:
    """Return the questions, and what their calls do."""
    width = max(len(question.name) for question in QUESTIONS)
    questions = "\n".join(f"  {question.name:{width}}  {question.text}" for question in QUESTIONS)
    return (
        f"{questions}\n"
        f"The calls for these questions go to {server}. They load instances of {model_key} beside what is loaded, and "
        "unload them at the end. They request responses of about 6,500 tokens together, and upload small files. "
        "They download nothing, run no tool, change no setting, and touch no other instance. Meanwhile they need "
        "memory, and other predictions may be slower."
    )


def run_probe(
    server: str,
    model_key: str,
    to: Path,
    *,
    token: str | None = None,
    plugin: str | None = None,
    questions: Sequence[Question] = QUESTIONS,
    on_question: Callable[[Question], object] = lambda _question: None,
) -> int:
    """Make the calls of the questions, write a cassette with a section for each, and return the number of its requests.

    What the server rejects is no error here: that it does is the answer. The probe's own instances are unloaded at the
    end, also after Ctrl-C; the cassette then has the questions so far.

    Args:
        server: `host:port` of LM Studio, or of an emulator.
        model_key: A downloaded language model, by its key.
        to: The cassette, which must not exist yet.
        token: The API token of the server.
        plugin: The plugin whose tools are listed; by default, one that does not exist.
        questions: The questions. The first one must load the main instance.
        on_question: Called before each question.

    Raises:
        LMStudioError: If the server is not reachable, or rejects the token.
        LMStudioOSError: If the cassette exists or cannot be written.
        LMStudioServerError: If the model cannot be loaded.
        LMStudioValueError: If the model is not downloaded or no language model, or an earlier probe is still loaded.
    """
    with Client(server, token) as client:
        _check(client, model_key)
        with (
            Recording(to, server) as recording,
            closing(ProbeContext(client, recording, model_key, plugin or NO_PLUGIN, token)) as context,
        ):
            for question in questions:
                on_question(question)
                try:
                    with context.recorded(question.name):
                        question.run(context)
                except _EXPECTED:  # which is in the cassette
                    if question is questions[0]:  # without its instance, there is nothing to ask
                        raise
                context.end_question()
        return recording.requests


def _check(client: Client, model_key: str) -> None:
    """Check that the model can be asked, and that no other probe runs."""
    if not any(each.model_key == model_key for each in client.llm.list_downloaded()):
        raise LMStudioValueError(f"{model_key!r} is no downloaded language model; name one by its key, see `lmsi ls`")
    identifiers = (handle.identifier for handle in client.list_loaded_models())
    leftovers = sorted(each for each in identifiers if each.startswith(PREFIX))
    if leftovers:
        raise LMStudioValueError(
            f"another probe runs, or has left {', '.join(leftovers)}; wait for it, or run `lms unload {leftovers[0]}`"
        )
