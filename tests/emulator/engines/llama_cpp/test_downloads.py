"""Downloads of bundled weights and of files; no package manager runs."""

import threading
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.llama_cpp import weights
from tests.emulator.bare_client import TIMEOUT, wire

COMMIT = {"type": "commit"}


def absent(weights: str) -> Emulator:
    """Return a server with a model that is to be downloaded."""
    return Emulator([ModelEntry(key="absent", engine="llama_cpp", weights=weights, downloaded=False)], offline=True)


def reported_bytes(packets: list[dict[str, Any]]) -> list[tuple[int, int]]:
    updates = [packet["update"] for packet in packets if packet["type"] == "downloadProgress"]
    return [(update["downloadedBytes"], update["totalBytes"]) for update in updates]


def test_a_file_is_downloaded_with_progress_and_used_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    with absent(str(source)) as server, wire(server, "repository") as shop, wire(server, "system") as system:
        error = shop.stream("downloadModel", {"downloadIdentifier": "absent"})[-1]["error"]
        assert "model.gguf" in error["cause"]
        source.write_bytes(b"GGUF" + bytes(996))
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert reported_bytes(packets) == [(0, 1000), (1000, 1000)]
        assert packets[-1] == {"type": "success", "defaultIdentifier": "absent"}
        assert [info["modelKey"] for info in system.result("listDownloadedModels")] == ["absent"]
    assert list(tmp_path.iterdir()) == [source]


@pytest.fixture
def may_end(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets a download of bundled weights end, for which the server waits when it stops."""
    event = threading.Event()

    def locate(*_: object, offline: bool, **__: object) -> None:
        assert offline
        assert event.wait(TIMEOUT)

    monkeypatch.setattr(weights, "locate", locate)
    return event


def test_bundled_weights_are_downloaded_by_name(may_end: threading.Event) -> None:
    may_end.set()
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        (none, total), (done, same) = reported_bytes(packets)
        assert none == 0 < total == done == same
        assert packets[-1]["type"] == "success"


def test_a_download_can_be_cancelled(may_end: threading.Event) -> None:
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        channel = shop.open("downloadModel", {"downloadIdentifier": "absent"})
        shop.receive()
        shop.send(channel, {"type": "cancel"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        may_end.set()


@pytest.mark.parametrize("committed", [False, True])
def test_a_plan_can_be_cancelled(may_end: threading.Event, committed: bool) -> None:
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        target = {"type": "artifact", "owner": "local", "name": "absent"}
        channel = shop.open("createDownloadPlan", {"target": target})
        assert shop.receive()["message"]["type"] == "planReady"
        if committed:
            shop.send(channel, COMMIT)
            assert shop.receive()["message"]["type"] == "downloadProgress"
            shop.send(channel, COMMIT)  # and again, which changes nothing
        shop.send(channel, {"type": "cancelDownload" if committed else "cancelPlan"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        may_end.set()
