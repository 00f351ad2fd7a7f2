"""Models with weights in the catalog: bundled ones, files and folders, and downloads."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.llama_cpp import weights
from lmstudio_integrations.emulator.models.catalog import BUNDLED, load, parse_model
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.bare_client import wire
from tests.emulator.engines.llama_cpp.gguf_files import gguf

CHAT, VECTORS = BUNDLED


def absolute(number: int) -> int:
    """Return a number without its sign."""
    return abs(number)


@pytest.mark.leaf("plugins")
def test_the_bundled_models_have_the_names_of_their_weights_and_are_the_default() -> None:
    bundled = tuple(parse_model(name) for name in BUNDLED)
    assert [(each.key, each.weights, each.kind, each.engine) for each in bundled] == [
        (CHAT, CHAT, "llm", "llama_cpp"),
        (VECTORS, VECTORS, "embedding", "llama_cpp"),
    ]
    assert all(each.full_path.count("/") == 2 for each in bundled)
    assert {name: bundle.kind for name, bundle in weights.BUNDLES.items()} == BUNDLED
    assert Emulator().catalog.models == Emulator(plugins={"mcp/absolute": [absolute]}).catalog.models == bundled
    assert Emulator([]).catalog.models == ()


@pytest.mark.parametrize(
    ("text", "weights", "kind", "path"),
    [
        (f"qwen2.5-7b-instruct={CHAT}", CHAT, "llm", parse_model(CHAT).full_path),
        (f"anything={VECTORS}", VECTORS, "embedding", parse_model(VECTORS).full_path),
        ("mine=/models/nomic-embed.gguf", "/models/nomic-embed.gguf", "embedding", "local/mine"),
    ],
)
def test_a_key_can_be_declared_over_any_weights(text: str, weights: str, kind: str, path: str) -> None:
    found = parse_model(text)
    assert found.key == text.split("=", maxsplit=1)[0]
    assert (found.weights, found.kind, found.engine, found.full_path) == (weights, kind, "llama_cpp", path)


def put(folder: Path, name: str, architecture: str | None = None) -> Path:
    """Put a model file into a folder; without an architecture, one that cannot be read."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf({"general.architecture": architecture}, {"t": (1,)}) if architecture else b"")
    return path


def test_a_folder_in_the_layout_of_lm_studio_is_a_catalog(tmp_path: Path) -> None:
    chat = put(tmp_path, "me/Chat-GGUF/Chat-Q4_K_M.gguf", "llama")
    put(tmp_path, "me/Chat-GGUF/mmproj-Chat.gguf", "clip")
    put(tmp_path, "me/MiniLM-GGUF/MiniLM.F16.gguf", "bert")
    put(tmp_path, "me/Twice-GGUF/Twice-Q4_0.gguf", "llama")
    put(tmp_path, "me/Twice-GGUF/Twice-Q8_0.gguf", "llama")
    put(tmp_path, "broken-embed.gguf")
    found = Emulator(catalog=tmp_path).catalog.models
    assert {each.key: (each.kind, each.full_path) for each in found} == {
        "chat": ("llm", "me/Chat-GGUF/Chat-Q4_K_M.gguf"),
        "minilm": ("embedding", "me/MiniLM-GGUF/MiniLM.F16.gguf"),
        "me/twice-gguf/twice-q4_0": ("llm", "me/Twice-GGUF/Twice-Q4_0.gguf"),
        "me/twice-gguf/twice-q8_0": ("llm", "me/Twice-GGUF/Twice-Q8_0.gguf"),
        "broken-embed": ("embedding", "local/broken-embed.gguf"),
    }
    assert {each.weights for each in found if each.key == "chat"} == {str(chat)}


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
def test_what_cannot_be_read_in_a_folder_is_skipped_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "good.gguf", "llama")
    os.mkfifo(tmp_path / "fifo.gguf")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "device.gguf").symlink_to("/dev/zero")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    bad = ["dangling", "device", "fifo", "folder", "loop", "socket"]
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(tmp_path):
        listening.bind("socket.gguf")  # a whole path may be too long for a socket
        with Emulator(catalog=tmp_path) as server, wire(server, "system") as me:
            assert [info["modelKey"] for info in me.result("listDownloadedModels")] == ["good"]
    skipped = [record.getMessage() for record in caplog.records if "skipped the model file" in record.getMessage()]
    assert [Path(line.split()[4].rstrip(":")).stem for line in skipped] == bad


def test_the_header_of_a_file_decides_its_kind(tmp_path: Path) -> None:
    assert parse_model(f"mine={put(tmp_path, 'v.gguf', 'nomic-bert')}").kind == "embedding"
    assert parse_model(f"mine={put(tmp_path, 'embed.gguf', 'llama')}").kind == "llm"


def test_a_folder_without_models_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(LMStudioValueError, match="no GGUF files"):
        load(tmp_path)


def test_a_file_that_may_not_be_read_has_the_kind_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(Path, "stat", denied)
    assert parse_model(f"m={tmp_path / 'locked' / 'model.gguf'}").kind == "llm"
