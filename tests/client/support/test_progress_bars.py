"""`show_progress`: bars on a terminal, none elsewhere."""

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations.client.support import progress_bars
from lmstudio_integrations.client.support.progress_bars import DELAY, ProgressBar
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS
from tests.faults.faults import FaultProxy
from tests.support.adapters import ADAPTERS
from tests.support.tqdm_bars import Drawn

Call = Callable[..., Awaitable[Any]]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """The usual server, with a model that can be downloaded."""
    with Emulator([*MODELS, {"key": "elsewhere", "downloaded": False}]) as running:
        yield running


async def load(client: Any, _: Path, **settings: Any) -> None:
    await client.llm.model("chatty", **settings)


async def load_new_instance(client: Any, _: Path, **settings: Any) -> None:
    await client.embedding.load_new_instance("vectors", **settings)


async def download(client: Any, _: Path, **settings: Any) -> None:
    callback = {"on_progress": settings["on_load_progress"]} if "on_load_progress" in settings else {}
    given = {name: each for name, each in settings.items() if name == "show_progress"} | callback
    (found,) = await client.repository.search_models("elsewhere")
    await (await found.get_download_options())[0].download(**given)


async def embed(client: Any, _: Path, **settings: Any) -> None:
    model = await client.embedding.model("vectors")
    texts = [f"text {n}" for n in range(150)]
    assert await model.embed(texts, **settings) == await model.embed(texts)


async def parse(client: Any, folder: Path, **settings: Any) -> None:
    await client.files.parse_document(await document(client, folder), **settings)


async def retrieve(client: Any, folder: Path, **settings: Any) -> None:
    await client.embedding.model("vectors")
    await client.files.retrieve("moon", [await document(client, folder)], **settings)


async def document(client: Any, folder: Path) -> Any:
    path = folder / "facts.md"
    path.write_text("# Facts\n\nThe moon is made of rock.\n", encoding="utf-8")
    return await client.files.prepare_file(path)


AUTO: dict[str, tuple[Call, str]] = {
    "load": (load, "Loading chatty"),
    "new instance": (load_new_instance, "Loading vectors"),
    "download": (download, "Downloading "),
}
"""What shows a line by default, and its label."""

CALLS: dict[str, tuple[Call, str]] = {
    **AUTO,
    "embed": (embed, "Embedding 150 texts"),
    "parse": (parse, "Parsing facts.md"),
    "retrieve": (retrieve, "Embedding facts.md"),
}


@pytest.mark.leaf
@pytest.mark.parametrize(("call", "label"), CALLS.values(), ids=CALLS)
async def test_a_terminal_shows_a_bar_up_to_its_end(
    client: Any, call: Call, label: str, tmp_path: Path, drawn: Drawn
) -> None:
    await call(client, tmp_path, show_progress=True)
    text = drawn()
    assert label in text
    assert "100%|" in text
    assert text.endswith("\n")


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("shown", [True, "auto"])
def test_a_service_shows_none(shown: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("Loading", shown=shown) as bar:
        bar.draw(0.5)
    assert capfd.readouterr() == ("", "")


async def test_a_name_cannot_control_the_terminal(drawn: Drawn) -> None:
    with ProgressBar("Loading \x1b]52;c;aGk=\x07\x9b8m\u202e\nname", shown=True) as bar:
        bar.draw(0.5)
    assert "Loading \\x1b]52;c;aGk=\\x07\\x9b8m\\u202e\\nname:  50%|" in drawn()


async def test_a_loaded_model_has_no_bar(client: Any, tmp_path: Path, drawn: Drawn) -> None:
    await client.llm.model("chatty")
    await load(client, tmp_path, show_progress=True)
    assert drawn() == ""


@pytest.mark.leaf
async def test_a_callback_is_called_beside_the_bar(client: Any, tmp_path: Path, drawn: Drawn) -> None:
    seen: list[float] = []
    await client.llm.model("chatty", show_progress=True, on_load_progress=seen.append)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    parsed: list[float] = []
    handle = await document(client, tmp_path)
    await client.files.parse_document(handle, show_progress=True, on_progress=parsed.append)
    assert parsed[-1] == 1.0
    assert "Loading chatty" in drawn()


async def test_a_load_that_fails_ends_its_bar(client: Any, drawn: Drawn) -> None:
    def fail(_: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await client.llm.model("chatty", show_progress=True, on_load_progress=fail)
    assert drawn().endswith("\n")


# A line of `auto` -----------------------------------------------------------------------------------------------------


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time: the delay passes whenever somebody looks."""
    now = [0.0]

    def tick() -> float:
        now[0] += DELAY
        return now[0]

    monkeypatch.setattr(progress_bars, "monotonic", tick)
    return now


@pytest.mark.leaf
@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize(("call", "label"), AUTO.values(), ids=AUTO)
async def test_what_takes_long_shows_a_line_on_a_terminal_that_disappears(
    client: Any, call: Call, label: str, tmp_path: Path, drawn: Drawn
) -> None:
    await call(client, tmp_path)
    text = drawn()
    assert f"\r{label}" in text
    assert text.endswith("\r")
    assert not text.rpartition("%")[2].strip()
    assert "\n" not in text


async def test_what_is_fast_shows_none(client: Any, tmp_path: Path, drawn: Drawn) -> None:
    await load(client, tmp_path)
    assert drawn() == ""


@pytest.mark.leaf
@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize(
    "settings", [{"show_progress": False}, {"on_load_progress": lambda _: None}], ids=["none", "itself"]
)
@pytest.mark.parametrize("call", [call for call, _ in AUTO.values()], ids=AUTO)
async def test_a_program_that_shows_it_itself_or_wants_none_has_no_line(
    client: Any, call: Call, settings: dict[str, Any], tmp_path: Path, drawn: Drawn
) -> None:
    await call(client, tmp_path, **settings)
    assert drawn() == ""


def test_a_process_without_stderr_shows_no_line() -> None:
    with contextlib.redirect_stderr(None):
        assert not ProgressBar("one", shown="auto").is_used


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudioEmbedding"])
def test_an_adapter_shows_a_line_for_a_load_and_none_for_texts(server: Emulator, name: str, drawn: Drawn) -> None:
    adapter = ADAPTERS[name]
    key = "vectors" if adapter.kind == "embedding" else "chatty"
    model = adapter.make(model=key, host=server.address)
    adapter.call(model, "hi")
    assert f"\rLoading {key}: " in drawn()
    adapter.call(model, "hi")
    assert drawn() == ""


@pytest.mark.usefixtures("passing")
def test_of_several_lines_one_is_shown_and_its_end_frees_the_place(drawn: Drawn) -> None:
    with ProgressBar("one", shown="auto") as first, ProgressBar("two", shown="auto") as second:
        for _ in range(2):
            first.draw(0.5)
            second.draw(0.5)
        assert drawn() == "\rone:  50%\rone:  50%"
        first.draw(1.0)
        second.draw(0.7)
        assert drawn() == "\rone: 100%\r         \r\rtwo:  70%"
    assert drawn() == "\r         \r"


@pytest.mark.usefixtures("passing")
async def test_a_load_that_fails_removes_its_line(
    make_client: Callable[..., Any], server: Emulator, drawn: Drawn
) -> None:
    with FaultProxy(server.address, "channel-closed-while-loading") as proxy:
        async with make_client(proxy.address) as client:
            with pytest.raises(lms.LMStudioServerError):
                await client.llm.model("chatty")
    text = drawn()
    assert "\rLoading chatty: " in text
    assert text.endswith(" \r")


def test_a_line_fits_into_the_terminal(passing: list[float], drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    with ProgressBar("a long name\n", shown="auto") as bar:
        passing[0] += DELAY
        bar.draw(0.5)
        assert drawn() == "\ra long na"


def test_without_tqdm_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError) as caught:
        ProgressBar("Loading", shown=True)
    assert str(caught.value) == f"show_progress=True needs tqdm; run: {package_command('tqdm')}"
    assert not ProgressBar("Loading", shown=False).is_used
