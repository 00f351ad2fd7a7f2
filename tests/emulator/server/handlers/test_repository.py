"""The endpoints that search and download models."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry
from lmstudio_integrations.emulator.engines import weights
from tests.emulator.bare_client import TIMEOUT, Wire, wire
from tests.emulator.server.handlers.models import ABSENT, BLIND, CHAT, VECTORS

ARTIFACT = {"type": "artifact", "owner": "scripted", "name": "absent"}
REPOSITORY = {"type": "model", "source": {"type": "huggingface", "user": "Scripted", "repo": "Absent"}}
COMMIT = {"type": "commit"}


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server of its own for each test: a download changes it."""
    with Emulator(catalog=Catalog(models=(CHAT, BLIND, VECTORS, ABSENT))) as emulator:
        yield emulator


@pytest.fixture
def shop(server: Emulator) -> Iterator[Wire]:
    with wire(server, "repository") as opened:
        yield opened


def absent(weights: str) -> Emulator:
    """Return a server with a model that is to be downloaded."""
    return Emulator([ModelEntry(key="absent", engine="llama_cpp", weights=weights, downloaded=False)], offline=True)


def reported_bytes(packets: list[dict[str, Any]]) -> list[tuple[int, int]]:
    updates = [packet["update"] for packet in packets if packet["type"] == "downloadProgress"]
    return [(update["downloadedBytes"], update["totalBytes"]) for update in updates]


def test_the_catalog_is_searched(shop: Wire) -> None:
    def names(**opts: Any) -> list[str]:
        return [found["name"] for found in shop.result("searchModels", {"opts": opts})["results"]]

    assert names() == ["chat", "blind", "vectors", "Not here"]
    assert names(limit=2) == ["chat", "blind"]
    assert names(searchTerm="NOT HERE") == names(searchTerm="absent") == ["Not here"]
    assert names(searchTerm="nothing like it") == []
    assert names(compatibilityTypes=["safetensors"]) == []
    (found,) = shop.result("searchModels", {"opts": {"searchTerm": "absent"}})["results"]
    assert found["identifier"] == {"type": "catalog", "identifier": "absent"}
    assert found["exact"] is True


def test_a_model_is_downloaded_and_then_loaded(server: Emulator, me: Wire, shop: Wire) -> None:
    assert me.get("absent")[-1]["type"] == "error"
    identifier = {"type": "catalog", "identifier": "absent"}
    (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
    assert (option["sizeBytes"], option["fitEstimation"]) == (10, "fitWithoutGPU")
    packets = shop.stream("downloadModel", {"downloadIdentifier": option["downloadIdentifier"]})
    assert [packet["type"] for packet in packets] == [*["downloadProgress"] * 2, "startFinalizing", "success"]
    assert me.get(packets[-1]["defaultIdentifier"])[-1]["type"] == "loadSuccess"
    assert "nothing" in shop.stream("downloadModel", {"downloadIdentifier": "nothing"})[-1]["error"]["title"]


def test_a_scripted_model_has_a_size_by_which_clients_can_divide() -> None:
    with Emulator([ModelEntry(key="a")]) as server, wire(server, "system") as system:
        assert [info["sizeBytes"] > 0 for info in system.result("listDownloadedModels")] == [True]


def test_a_file_is_downloaded_with_progress_and_used_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    with absent(str(source)) as server, wire(server, "repository") as shop, wire(server, "system") as system:
        error = shop.stream("downloadModel", {"downloadIdentifier": "absent"})[-1]["error"]
        assert "model.gguf" in error["cause"]
        source.write_bytes(b"GGUF" + bytes(996))
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert reported_bytes(packets) == [(step * 100, 1000) for step in range(11)]
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


def ready_plan(shop: Wire, channel: int) -> dict[str, Any]:
    """Return the plan in the next packet, which must be the first one."""
    packet = shop.receive()
    assert packet["channelId"] == channel
    assert packet["message"]["type"] == "planReady", packet
    plan: dict[str, Any] = packet["message"]["plan"]
    return plan


@pytest.mark.parametrize(
    ("endpoint", "parameter"),
    [
        ("createDownloadPlan", {"target": REPOSITORY, "opts": {"compatibilityTypes": ["gguf"]}}),
        ("createArtifactDownloadPlan", {"owner": "scripted", "name": "absent"}),
    ],
)
def test_a_plan_is_carried_out_when_the_client_commits(
    me: Wire, shop: Wire, endpoint: str, parameter: dict[str, Any]
) -> None:
    channel = shop.open(endpoint, parameter)
    plan = ready_plan(shop, channel)
    *artifact, model = plan.pop("nodes")
    assert plan == {"downloadSizeBytes": 10, "downloadAction": "startNewDownload", "version": 0}
    assert len(artifact) == ("owner" in str(parameter))
    assert model["selected"]["modelKey"] == "absent"
    assert model["type"] == "model"
    assert [option["availability"] for option in model["downloadOptions"]] == ["notDownloaded"]
    assert me.get("absent")[-1]["type"] == "error"
    shop.send(channel, COMMIT)
    kinds = [packet["type"] for packet in shop.packets(channel)]
    assert kinds == [*["downloadProgress"] * 2, "startFinalizing", "success"]
    assert me.get("absent")[-1]["type"] == "loadSuccess"


def select(option: int | None, version: Any) -> dict[str, Any]:
    choice = {"nodeIndex": 1, "selectedDownloadOptionIndex": option, "requestedPlanVersion": version}
    return {"type": "setSelectedDownloadOptionIndex", **choice}


def test_a_plan_for_what_is_there_downloads_nothing_unless_it_is_chosen(shop: Wire) -> None:
    channel = shop.open("createDownloadPlan", {"target": ARTIFACT | {"name": "chat"}})
    plan = ready_plan(shop, channel)
    assert (plan["downloadSizeBytes"], plan["downloadAction"]) == (0, "none")
    assert plan["nodes"][1]["alreadyOwned"]["modelKey"] == "chat"
    for version, option in ((1, 0), (2, None)):
        shop.send(channel, select(option, version))
        update = shop.receive()["message"]
        assert update["type"] == "planUpdated"
        assert update["plan"]["version"] == version
        assert update["plan"]["nodes"][1]["selectedDownloadOptionIndex"] == option
        # Chosen, it is downloaded again; a size of 0 would mean that nothing is to be done.
        assert (update["plan"]["downloadSizeBytes"] > 0) == (option == 0)
    shop.send(channel, COMMIT)
    assert [packet["type"] for packet in shop.packets(channel)] == ["startFinalizing", "success"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_plan_can_be_cancelled(may_end: threading.Event, committed: bool) -> None:
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        channel = shop.open("createDownloadPlan", {"target": ARTIFACT | {"owner": "local"}})
        ready_plan(shop, channel)
        if committed:
            shop.send(channel, COMMIT)
            assert shop.receive()["message"]["type"] == "downloadProgress"
            shop.send(channel, COMMIT)  # and again, which changes nothing
        shop.send(channel, {"type": "cancelDownload" if committed else "cancelPlan"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        may_end.set()


def test_the_catalog_is_recommended_as_artifacts() -> None:
    models = (CHAT, ModelEntry(key="Qwen/Qwen3-4B"), ModelEntry(key="no_artifact"), ModelEntry(key="chatty"), VECTORS)
    with Emulator(models) as server, wire(server, "repository") as me:

        def picks(**parameter: Any) -> list[str]:
            found = me.result("fuzzyFindStaffPicks", parameter)["results"]
            return [f"{pick['owner']}/{pick['name']}{'!' * pick['exact']}" for pick in found]

        assert picks() == ["scripted/chat", "qwen/qwen3-4b", "scripted/chatty", "scripted/vectors"]
        assert picks(searchTerm="Chat") == ["scripted/chat!", "scripted/chatty"]
        assert picks(searchTerm="qwen/qwen3-4b") == ["qwen/qwen3-4b!"]
        assert picks(limit=1) == ["scripted/chat"]
        assert picks(compatibilityTypes=["safetensors"]) == []
        catalog = me.result("getModelCatalog")["models"]
        assert [f"{model['owner']}/{model['name']}" for model in catalog] == picks()
        assert [model["metadata"]["type"] for model in catalog] == ["llm", "llm", "llm", "embedding"]
