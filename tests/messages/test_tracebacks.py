"""A mistake that a user can mend has a short traceback: in scripts, in notebooks, and within the frameworks."""

import runpy
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from IPython.core.ultratb import AutoFormattedTB

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import DEBUG_VARIABLE, HOST_VARIABLE
from lmstudio_integrations.client import support
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError
from tests.messages.mistakes import closed_port

PACKAGE = str(Path(support.__file__).parents[2])
MOST_LINES = 15
"""Of a traceback in a program that uses no framework."""

NATIVE = {
    "respond": "lms.llm(KEY).respond(TEXT, config=CUT)",
    "stream": "for _ in lms.llm(KEY).respond_stream(TEXT, config=CUT): pass",
}
ASYNC = {
    "async respond": "await (await client.llm.model(KEY)).respond(TEXT, config=CUT)",
    "async stream": "async for _ in (await client.llm.model(KEY)).respond_stream(TEXT, config=CUT): pass",
    "ChatLMStudio.ainvoke": "await ChatLMStudio(model=KEY).ainvoke(TEXT)",
}
IN_FRAMEWORKS = {
    "ChatLMStudio.invoke": "ChatLMStudio(model=KEY).invoke(TEXT)",
    "ChatLMStudio.stream": "for _ in ChatLMStudio(model=KEY).stream(TEXT): pass",
    "ChatLMStudio.batch": "ChatLMStudio(model=KEY).batch([TEXT])",
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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server on which nothing is loaded."""
    calls = ({"then": [{"tool": "broken", "arguments": {"n": 1}}]},)
    models = [
        ModelEntry(key="chatty"),
        ModelEntry(key="embedder", kind="embedding"),
        ModelEntry(key="caller", rules=calls),
    ]
    with Emulator(models) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)


def error_of(code: str, key: str | None, folder: Path, kind: type[ErrorT], before: str = "") -> ErrorT:
    """Run a program and return its error; the traceback begins in the program.

    Args:
        code: Its call.
        key: The model.
        folder: Where to write it.
        kind: The class of the error.
        before: What is defined in it.
    """
    if "await " in code or "async " in code:
        code = f"async def main():\n    client = lms.AsyncClient()\n    {code}\nasyncio.run(main())"
    path = folder / "program.py"
    path.write_text(f"{BEGINNING}KEY, TEXT = {key!r}, 'hello'\n{before}\n{code}\n")
    reset_default_client()
    with pytest.raises(kind) as caught:
        runpy.run_path(str(path))
    reset_default_client()
    trace = caught.value.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    return caught.value.with_traceback(trace)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("server")
def test_a_traceback_is_short(way: str, tmp_path: Path) -> None:
    error = error_of(WAYS[way], None, tmp_path, LMStudioError)
    shown = "".join(traceback.format_exception(error))
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
    assert len(own) <= 1, shown
    assert shown.count("Traceback") == 1, shown
    assert f'{way.partition(".")[0]}(model="' in shown or 'client.llm.model("' in shown, shown
    if way in NATIVE:
        assert shown.count("\n") <= MOST_LINES, shown
        notebook = AutoFormattedTB(mode="Context", theme_name="nocolor").text(type(error), error, error.__traceback__)
        assert notebook.count("\n") <= MOST_LINES, notebook


@pytest.mark.parametrize("debug", ["", "1"])
def test_only_the_debug_variable_keeps_all_frames_and_causes(
    debug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, debug)
    with closed_port() as address:
        monkeypatch.setenv(HOST_VARIABLE, address)
        error = error_of(WAYS["respond"], "chatty", tmp_path, LMStudioError)
    shown = "".join(traceback.format_exception(error))
    assert ("flows.py" in shown, shown.count("Traceback") > 1) == (bool(debug), bool(debug))
    assert isinstance(error.__cause__, OSError) == bool(debug)


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
    "async respond": "await (await client.llm.model(KEY)).respond(TEXT, response_format=Broken)",
    "ChatLMStudio.invoke": "ChatLMStudio(model=KEY).invoke(TEXT, response_format=Broken)",
    "LMStudio.structured_predict": "LMStudio(model=KEY).structured_predict(Broken, PromptTemplate(TEXT))",
    "callback of an async stream": "async for _ in (await client.llm.model(KEY)).respond_stream(TEXT, "
    "on_first_token=amine): pass",
    "callback of async act": "await (await client.llm.model(KEY)).act(TEXT, [tool], on_message=mine)",
    "tool of act": "lms.llm('caller').act(TEXT, [broken], handle_invalid_tool_request=again)",
    "tool of async act": "await (await client.llm.model('caller')).act(TEXT, [broken], "
    "handle_invalid_tool_request=again)",
    "callback of an adapter": "ChatLMStudio(model=KEY, load_policy='new_instance', on_load_progress=mine).invoke(TEXT)",
    "callback of an embedding": "LMStudioEmbedding(model='embedder', load_policy='new_instance', on_load_progress=mine)"
    ".get_text_embedding(TEXT)",
    "thread": "ThreadPoolExecutor(1).submit(lambda: lms.llm(KEY).respond(TEXT, on_message=mine)).result()",
}


@pytest.mark.parametrize("code", RAISING.values(), ids=RAISING)
@pytest.mark.usefixtures("server")
def test_an_exception_of_the_user_is_shown_with_its_frames(code: str, tmp_path: Path) -> None:
    error = error_of(code, "chatty", tmp_path, Exception, OF_THE_USER)
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
