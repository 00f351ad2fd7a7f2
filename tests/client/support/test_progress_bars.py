"""`show_progress`: bars on a terminal, none elsewhere; the same bodies for both clients."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations.client.support.progress_bars import ProgressBar
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS
from tests.support.tqdm_bars import Drawn

Call = Callable[[Any, Path], Awaitable[Any]]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """The usual server, with a model that can be downloaded."""
    with Emulator([*MODELS, {"key": "elsewhere", "downloaded": False}]) as running:
        yield running


async def load(client: Any, _: Path) -> None:
    await client.llm.model("chatty", show_progress=True)


async def load_new_instance(client: Any, _: Path) -> None:
    await client.embedding.load_new_instance("vectors", show_progress=True)


async def embed(client: Any, _: Path) -> None:
    model = await client.embedding.model("vectors")
    texts = [f"text {n}" for n in range(150)]
    assert await model.embed(texts, show_progress=True) == await model.embed(texts)


async def parse(client: Any, folder: Path) -> None:
    await client.files.parse_document(await document(client, folder), show_progress=True)


async def retrieve(client: Any, folder: Path) -> None:
    await client.embedding.model("vectors")
    await client.files.retrieve("moon", [await document(client, folder)], show_progress=True)


async def download(client: Any, _: Path) -> None:
    if hasattr(client, "sync"):
        (found,) = client.sync.repository.search_models("elsewhere")
        found.get_download_options()[0].download(show_progress=True)
    else:
        (found,) = await client.repository.search_models("elsewhere")
        await (await found.get_download_options())[0].download(show_progress=True)


async def document(client: Any, folder: Path) -> Any:
    path = folder / "facts.md"
    path.write_text("# Facts\n\nThe moon is made of rock.\n", encoding="utf-8")
    return await client.files.prepare_file(path)


CALLS: dict[str, tuple[Call, list[str]]] = {
    "load": (load, ["Loading chatty"]),
    "new instance": (load_new_instance, ["Loading vectors"]),
    "embed": (embed, ["Embedding 150 texts"]),
    "download": (download, ["Downloading "]),
    "parse": (parse, ["Parsing facts.md"]),
    "retrieve": (retrieve, ["Embedding facts.md"]),
}
EACH = pytest.mark.parametrize(("call", "labels"), [pytest.param(*item, id=name) for name, item in CALLS.items()])


@EACH
async def test_a_terminal_shows_a_bar_up_to_its_end(
    client: Any, call: Call, labels: list[str], tmp_path: Path, drawn: Drawn
) -> None:
    await call(client, tmp_path)
    text = drawn()
    for label in labels:
        assert label in text
    assert "100%|" in text
    assert text.endswith("\n")


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, (call, _) in CALLS.items()])
async def test_a_service_shows_none(client: Any, call: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    await call(client, tmp_path)
    assert capfd.readouterr() == ("", "")


async def test_a_name_cannot_control_the_terminal(drawn: Drawn) -> None:
    with ProgressBar("Loading \x1b]52;c;aGk=\x07\x9b8m\u202e\nname", shown=True) as bar:
        bar.update(0.5)
    assert "Loading \\x1b]52;c;aGk=\\x07\\x9b8m\\u202e\\nname:  50%|" in drawn()


async def test_a_loaded_model_has_no_bar(client: Any, tmp_path: Path, drawn: Drawn) -> None:
    await client.llm.model("chatty")
    await load(client, tmp_path)
    assert drawn() == ""


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


def test_without_tqdm_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError) as caught:
        ProgressBar("Loading", shown=True)
    assert str(caught.value) == f"show_progress=True needs tqdm; run: {package_command('tqdm')}"
    assert ProgressBar("Loading", shown=False).before(None) is None
