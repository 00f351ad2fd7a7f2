"""An exception of the code of a user is shown with its frames, through everything that calls that code."""

import runpy
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError

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
