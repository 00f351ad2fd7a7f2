"""What reads files does so beside the event loops, as programs check that forbid blocking calls in them."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioOSError, LMStudioUnreachableError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests.support.web import PIXEL


@pytest.fixture(autouse=True)
def _files_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let functions that read disks fail if this package calls them in an event loop. Imports may read."""

    def forbid(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            if asyncio._get_running_loop() is not None and caller.startswith(lms.__name__):
                raise RuntimeError(f"blocking call of {name}")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    for owner, name in ((Path, "read_bytes"), (Path, "stat"), (Path, "exists"), (os.path, "realpath")):
        forbid(owner, name)


def _langchain(model: Any, path: Path) -> Callable[[], Awaitable[Any]]:
    message = HumanMessage(["what is it?", {"type": "image", "path": str(path)}])
    return lambda: model.ainvoke([message])


def _llama_index(model: Any, path: Path) -> Callable[[], Awaitable[Any]]:
    message = ChatMessage(role="user", blocks=[TextBlock(text="what is it?"), ImageBlock(path=path)])
    return lambda: model.achat([message])


@pytest.mark.parametrize(("adapter", "ask"), [(ChatLMStudio, _langchain), (LMStudio, _llama_index)])
def test_an_image_is_read_beside_the_event_loop(adapter: Any, ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PIXEL)
    with Emulator([ModelEntry(key="eyes", vision=True)]) as emulator:
        model = adapter(model="eyes", host=emulator.address)
        call = ask(model, path)
        asyncio.run(call())
        assert len(emulator.predictions) == 1
        path.unlink()
        with pytest.raises(LMStudioOSError, match=r"cannot read .*a\.png': No such file or directory"):
            asyncio.run(call())


def test_a_file_is_read_beside_the_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PIXEL)

    async def upload() -> None:
        async with lms.AsyncClient(emulator.address) as client:
            assert (await client.files.prepare_image(path)).name == "a.png"
            assert (await client.files.prepare_file(str(path))).name == "a.png"

    with Emulator([]) as emulator:
        asyncio.run(upload())


def test_a_server_that_is_not_reachable_is_reported_as_that() -> None:
    with pytest.raises(LMStudioUnreachableError, match=r"nothing listens there|no LM Studio, llmster or Bionic found"):
        asyncio.run(ChatLMStudio(model="m").ainvoke("Hello"))
