"""A mistake that a user can mend has a short traceback: in scripts, in notebooks, and within the frameworks."""

import runpy
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

import pytest
from IPython.core.ultratb import AutoFormattedTB

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import DEBUG_VARIABLE, HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client import support
from lmstudio_integrations.client.api.convenience import reset_default_client
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError
from tests.messages.mistakes import LLM, OTHER_TOKEN, TOKEN, closed_port, models

PACKAGE = str(Path(support.__file__).parents[2])
MOST_LINES = 15
"""Of a traceback in a program that uses no framework."""

NATIVE = {
    "respond": "lms.llm(KEY).respond(TEXT, config=CUT)",
    "act": "lms.llm(KEY).act(TEXT, [], config=CUT)",
    "stream": "for _ in lms.llm(KEY).respond_stream(TEXT, config=CUT): pass",
    "events": "for _ in lms.llm(KEY).respond_stream(TEXT, config=CUT).events(): pass",
    "next": "next(lms.llm(KEY).respond_stream(TEXT, config=CUT))",
}
ASYNC = {
    "async respond": "await (await client.llm.model(KEY)).respond(TEXT, config=CUT)",
    "async stream": "async for _ in (await client.llm.model(KEY)).respond_stream(TEXT, config=CUT): pass",
    "async events": "async for _ in (await client.llm.model(KEY)).respond_stream(TEXT, config=CUT).events(): pass",
    "ChatLMStudio.ainvoke": "await ChatLMStudio(model=KEY).ainvoke(TEXT)",
    "ChatLMStudio.astream": "async for _ in ChatLMStudio(model=KEY).astream(TEXT): pass",
    "LMStudio.acomplete": "await LMStudio(model=KEY).acomplete(TEXT)",
    "LMStudio.astream_complete": "async for _ in await LMStudio(model=KEY).astream_complete(TEXT): pass",
}
IN_FRAMEWORKS = {
    "ChatLMStudio.invoke": "ChatLMStudio(model=KEY).invoke(TEXT)",
    "ChatLMStudio.stream": "for _ in ChatLMStudio(model=KEY).stream(TEXT): pass",
    "ChatLMStudio.batch": "ChatLMStudio(model=KEY).batch([TEXT])",
    "LMStudioLLM.invoke": "LMStudioLLM(model=KEY).invoke(TEXT)",
    "LMStudio.chat": "LMStudio(model=KEY).chat([ChatMessage(TEXT)])",
    "LMStudio.stream_complete": "for _ in LMStudio(model=KEY).stream_complete(TEXT): pass",
    "LMStudioEmbeddings": "LMStudioEmbeddings(model=KEY).embed_query(TEXT)",
    "LMStudioEmbedding": "LMStudioEmbedding(model=KEY).get_text_embedding(TEXT)",
}
WAYS = NATIVE | ASYNC | IN_FRAMEWORKS
BEGINNING = """import asyncio; import lmstudio_integrations as lms
from lmstudio_integrations.langchain import *; from lmstudio_integrations.llama_index import *
from llama_index.core.llms import ChatMessage; CUT = {"contextOverflowPolicy": "stopAtLimit"}
"""

ErrorT = TypeVar("ErrorT", bound=BaseException)
Mistake: TypeAlias = Callable[[pytest.MonkeyPatch], AbstractContextManager[tuple[str | None, str]]]
"""Sets the environment of a program; yields the model that it asks for, and its prompt."""


@contextmanager
def wrong_key(patch: pytest.MonkeyPatch) -> Iterator[tuple[str | None, str]]:
    with Emulator(models()) as server:
        patch.setenv(HOST_VARIABLE, server.address)
        yield "gema-3-4b", "hello"


@contextmanager
def no_server(patch: pytest.MonkeyPatch) -> Iterator[tuple[str | None, str]]:
    with closed_port() as address:
        patch.setenv(HOST_VARIABLE, address)
        yield LLM, "hello"


@contextmanager
def nothing_loaded(patch: pytest.MonkeyPatch) -> Iterator[tuple[str | None, str]]:
    with wrong_key(patch):
        yield None, "hello"


@contextmanager
def overflow(patch: pytest.MonkeyPatch) -> Iterator[tuple[str | None, str]]:
    with wrong_key(patch):
        yield LLM, "word " * 100


@contextmanager
def wrong_token(patch: pytest.MonkeyPatch) -> Iterator[tuple[str | None, str]]:
    with Emulator(models(), tokens=[TOKEN]) as server:
        patch.setenv(HOST_VARIABLE, server.address)
        patch.setenv(TOKEN_VARIABLES[0], OTHER_TOKEN)
        yield LLM, "hello"


MISTAKES: tuple[Mistake, ...] = (wrong_key, no_server, overflow, wrong_token)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)


def error_of(code: str, key: str | None, text: str, folder: Path, kind: type[ErrorT], before: str = "") -> ErrorT:
    """Run a program and return its error; the traceback begins in the program.

    Args:
        code: Its call.
        key: The model.
        text: The prompt.
        folder: Where to write it.
        kind: The class of the error.
        before: What is defined in it.
    """
    if "await " in code or "async " in code:
        code = f"async def main():\n    client = lms.AsyncClient()\n    {code}\nasyncio.run(main())"
    path = folder / "program.py"
    path.write_text(f"{BEGINNING}KEY, TEXT = {key!r}, {text!r}\n{before}\n{code}\n")
    reset_default_client()
    with pytest.raises(kind) as caught:
        runpy.run_path(str(path))
    reset_default_client()
    return from_program(caught.value, path)


def from_program(error: ErrorT, path: Path) -> ErrorT:
    """Return an exception with the frames of a program and below."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    return error.with_traceback(trace)


@pytest.mark.parametrize(
    ("way", "mistake"), [*((way, nothing_loaded) for way in WAYS), *(("respond", each) for each in MISTAKES)]
)
def test_a_traceback_is_short(way: str, mistake: Mistake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with mistake(monkeypatch) as (key, text):
        error = error_of(WAYS[way], key, text, tmp_path, LMStudioError)
    shown = "".join(traceback.format_exception(error))
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
    assert len(own) <= 1, shown
    assert shown.count("Traceback") == 1, shown
    if mistake is nothing_loaded:
        adapter = way.partition(".")[0]
        assert f'{adapter}(model="' in shown or 'client.llm.model("' in shown, shown
    if way in NATIVE:
        assert shown.count("\n") <= MOST_LINES, shown
        notebook = AutoFormattedTB(mode="Context", theme_name="nocolor").text(type(error), error, error.__traceback__)
        assert notebook.count("\n") <= MOST_LINES, notebook


def test_the_debug_variable_keeps_all_frames_and_causes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with no_server(monkeypatch) as (key, text):
        error = error_of(WAYS["respond"], key, text, tmp_path, LMStudioError)
    assert "flows.py" in "".join(traceback.format_exception(error))
    assert isinstance(error.__cause__, OSError)


def test_an_error_from_the_code_of_the_user_keeps_its_frames() -> None:
    def callback() -> None:
        raise LMStudioError("no") from ValueError("why")

    with pytest.raises(LMStudioError) as caught, short_traceback():
        callback()
    assert caught.traceback[-1].name == "callback"
    assert isinstance(caught.value.__cause__, ValueError)


OF_THE_USER = """
from concurrent.futures import ThreadPoolExecutor
from json import loads
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

class Broken(BaseModel):
    @classmethod
    def model_json_schema(cls, *_, **__):
        return mine()

def mine(*_):
    return loads("mine")

def broken(n: int) -> int:
    "Count."
    return mine()

def again(error, _):
    raise error

async def amine(*_):
    return mine()

def tool(n: int) -> int:
    "Count."
    return n
"""
RAISING = {
    "respond": "lms.llm(KEY).respond(TEXT, response_format=Broken)",
    "async respond": "await (await client.llm.model(KEY)).respond(TEXT, response_format=Broken)",
    "ChatLMStudio.invoke": "ChatLMStudio(model=KEY).invoke(TEXT, response_format=Broken)",
    "ChatLMStudio.with_structured_output": "ChatLMStudio(model=KEY).with_structured_output(Broken)",
    "LMStudio.structured_predict": "LMStudio(model=KEY).structured_predict(Broken, PromptTemplate(TEXT))",
    "callback": "lms.llm(KEY).respond(TEXT, on_message=mine)",
    "callback of a stream": "for _ in lms.llm(KEY).respond_stream(TEXT, on_first_token=mine): pass",
    "callback of an async stream": "async for _ in (await client.llm.model(KEY)).respond_stream(TEXT, "
    "on_first_token=amine): pass",
    "callback of async act": "await (await client.llm.model(KEY)).act(TEXT, [tool], on_message=mine)",
    "tool of act": "lms.llm('caller').act(TEXT, [broken], handle_invalid_tool_request=again)",
    "tool of act in a thread": "lms.llm('caller').act(TEXT, [broken], max_parallel_tool_calls=2, "
    "handle_invalid_tool_request=again)",
    "tool of async act": "await (await client.llm.model('caller')).act(TEXT, [broken], "
    "handle_invalid_tool_request=again)",
    "callback of an adapter": "ChatLMStudio(model=KEY, load_policy='new_instance', on_load_progress=mine).invoke(TEXT)",
    "callback of an embedding": "LMStudioEmbedding(model='embedder', load_policy='new_instance', on_load_progress=mine)"
    ".get_text_embedding(TEXT)",
    "thread": "ThreadPoolExecutor(1).submit(lambda: lms.llm(KEY).respond(TEXT, on_message=mine)).result()",
}


@pytest.mark.parametrize("code", RAISING.values(), ids=RAISING)
def test_an_exception_of_the_user_is_shown_with_its_frames(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = ({"then": [{"tool": "broken", "arguments": {"n": 1}}]},)
    models = (
        ModelEntry(key="chatty"),
        ModelEntry(key="embedder", kind="embedding"),
        ModelEntry(key="caller", rules=calls),
    )
    with Emulator(models) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        error = error_of(code, "chatty", "hello", tmp_path, Exception, OF_THE_USER)
    assert_shows(error, "in mine", "JSONDecodeError: Expecting value", "in loads")


def assert_shows(error: BaseException, *texts: str) -> None:
    """Check that what is printed of an exception has these texts."""
    shown = "".join(traceback.format_exception(error))
    assert [text for text in texts if text not in shown] == []


def test_a_mistake_in_the_code_of_the_user_shows_its_frames() -> None:
    class Mine(lms.Client):
        def ask(self) -> None:
            self.llm.model("chatty").respond("Hi", on_message=append)

    def append(_message: object) -> None:
        lms.Chat().append(3)  # type: ignore[arg-type]  # the mistake

    with (
        Emulator([ModelEntry(key="chatty")]) as server,
        Mine(server.address) as client,
        pytest.raises(LMStudioError) as caught,
    ):
        client.ask()
    assert [each.name for each in caught.traceback if str(each.path) == __file__][1:] == ["ask", "append"]


def test_an_error_that_hides_a_cause_of_ours_shows_what_the_user_handles() -> None:
    def mine(client: lms.Client) -> None:
        try:
            dict[str, int]()["mine"]
        except KeyError:
            client.llm.model("chatty").respond("Hi", response_format={"type": "bogus"})

    with (
        Emulator([ModelEntry(key="chatty")]) as server,
        lms.Client(server.address) as client,
        pytest.raises(LMStudioError) as caught,
    ):
        mine(client)
    assert_shows(caught.value, "KeyError: 'mine'", "During handling of the above exception")
