"""The endpoints that search and download models."""

import threading
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.weights import WeightsError
from tests.emulator.bare_client import TIMEOUT, Wire, wire
from tests.emulator.server.handlers.models import CHAT, VECTORS, absent

ARTIFACT = {"type": "artifact", "owner": "scripted", "name": "absent"}
REPOSITORY = {"type": "model", "source": {"type": "huggingface", "user": "Scripted", "repo": "Absent"}}
COMMIT = {"type": "commit"}


def test_the_catalog_is_searched(server: Emulator) -> None:
    with wire(server, "repository") as me:

        def names(**opts: Any) -> list[str]:
            return [found["name"] for found in me.result("searchModels", {"opts": opts})["results"]]

        assert names() == ["chat", "blind", "vectors", "Not here"]
        assert names(limit=2) == ["chat", "blind"]
        assert names(searchTerm="NOT HERE") == names(searchTerm="absent") == ["Not here"]
        assert names(searchTerm="nothing like it") == []
        assert names(compatibilityTypes=["safetensors"]) == []
        (found,) = me.result("searchModels", {"opts": {"searchTerm": "absent"}})["results"]
        assert found["identifier"] == {"type": "catalog", "identifier": "absent"}
        assert found["exact"] is True


def test_a_model_is_downloaded_and_then_loaded(server: Emulator, me: Wire) -> None:
    assert me.get("absent")[-1]["type"] == "error"
    with wire(server, "repository") as shop:
        identifier = {"type": "catalog", "identifier": "absent"}
        (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
        assert option["sizeBytes"] == 10
        assert option["fitEstimation"] == "fitWithoutGPU"
        packets = shop.stream("downloadModel", {"downloadIdentifier": option["downloadIdentifier"]})
        assert [packet["type"] for packet in packets] == [*["downloadProgress"] * 2, "startFinalizing", "success"]
        update = packets[0]["update"]
        assert update.keys() == {"downloadedBytes", "totalBytes", "speedBytesPerSecond"}
        assert me.get(packets[-1]["defaultIdentifier"])[-1]["type"] == "loadSuccess"


def test_a_scripted_model_has_a_size_by_which_clients_can_divide() -> None:
    with Emulator([ModelEntry(key="absent", downloaded=False)]) as server:
        with wire(server, "repository") as shop:
            identifier = {"type": "catalog", "identifier": "absent"}
            (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
            size = option["sizeBytes"]
            assert reported_bytes(shop.stream("downloadModel", {"downloadIdentifier": "absent"})) == [
                (0, size),
                (size, size),
            ]
        with wire(server, "system") as system:
            assert [info["sizeBytes"] for info in system.result("listDownloadedModels")] == [size]
    assert size > 0


def test_what_is_not_in_the_catalog_cannot_be_downloaded(server: Emulator) -> None:
    with wire(server, "repository") as shop:
        assert "nothing" in shop.stream("downloadModel", {"downloadIdentifier": "nothing"})[-1]["error"]["title"]


def reported_bytes(packets: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [
        (packet["update"]["downloadedBytes"], packet["update"]["totalBytes"])
        for packet in packets
        if packet["type"] == "downloadProgress"
    ]


def test_a_file_is_downloaded_with_progress_and_used_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF" + bytes(996))
    with absent(str(source)) as server, wire(server, "repository") as shop, wire(server, "system") as system:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert reported_bytes(packets) == [(step * 100, 1000) for step in range(11)]
        assert packets[-1] == {"type": "success", "defaultIdentifier": "absent"}
        assert [info["modelKey"] for info in system.result("listDownloadedModels")] == ["absent"]
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_that_is_not_there_cannot_be_downloaded(tmp_path: Path) -> None:
    with absent(str(tmp_path / "nothing.gguf")) as server, wire(server, "repository") as shop:
        error = shop.stream("downloadModel", {"downloadIdentifier": "absent"})[-1]["error"]
        assert "nothing.gguf" in error["cause"]


def test_bundled_weights_are_not_fetched_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def located(*_: object, offline: bool, **__: object) -> None:
        assert offline
        raise WeightsError("they are not here")

    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", located)
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        assert reported_bytes(packets)[0][0] == 0
        assert packets[-1]["error"]["cause"] == "they are not here"


def test_bundled_weights_are_downloaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", lambda *_, **__: ())
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        packets = shop.stream("downloadModel", {"downloadIdentifier": "absent"})
        (none, total), (done, same) = reported_bytes(packets)
        assert none == 0 < total == done == same
        assert packets[-1]["type"] == "success"


def test_a_download_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", lambda *_, **__: go_on.wait(TIMEOUT))
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        channel = shop.open("downloadModel", {"downloadIdentifier": "absent"})
        shop.receive()
        shop.send(channel, {"type": "cancel"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        go_on.set()


def select(node: int, option: int | None, version: Any = 1) -> dict[str, Any]:
    return {
        "type": "setSelectedDownloadOptionIndex",
        "nodeIndex": node,
        "selectedDownloadOptionIndex": option,
        "requestedPlanVersion": version,
    }


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
        ("createDownloadPlan", {"target": ARTIFACT}),
        ("createDownloadPlan", {"target": REPOSITORY, "opts": {"compatibilityTypes": ["gguf"]}}),
        ("createArtifactDownloadPlan", {"owner": "scripted", "name": "absent"}),
    ],
)
def test_a_plan_is_carried_out_when_the_client_commits(
    server: Emulator, me: Wire, endpoint: str, parameter: dict[str, Any]
) -> None:
    with wire(server, "repository") as shop:
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


def test_a_plan_for_what_is_there_downloads_nothing_unless_it_is_chosen(server: Emulator) -> None:
    with wire(server, "repository") as shop:
        channel = shop.open("createDownloadPlan", {"target": ARTIFACT | {"name": "chat"}})
        plan = ready_plan(shop, channel)
        assert (plan["downloadSizeBytes"], plan["downloadAction"]) == (0, "none")
        assert plan["nodes"][1]["alreadyOwned"]["modelKey"] == "chat"
        for version, option in ((1, 0), (2, None)):
            shop.send(channel, select(1, option, version))
            update = shop.receive()["message"]
            assert update["type"] == "planUpdated"
            assert update["plan"]["version"] == version
            assert update["plan"]["nodes"][1]["selectedDownloadOptionIndex"] == option
            # Chosen, it is downloaded again; a size of 0 would mean that nothing is to be done.
            assert (update["plan"]["downloadSizeBytes"] > 0) == (option == 0)
        shop.send(channel, COMMIT)
        assert [packet["type"] for packet in shop.packets(channel)] == ["startFinalizing", "success"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_plan_can_be_cancelled(monkeypatch: pytest.MonkeyPatch, committed: bool) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", lambda *_, **__: go_on.wait(TIMEOUT))
    with absent("smollm2-135m-instruct") as server, wire(server, "repository") as shop:
        channel = shop.open("createDownloadPlan", {"target": ARTIFACT | {"owner": "local"}})
        ready_plan(shop, channel)
        if committed:
            shop.send(channel, COMMIT)
            assert shop.receive()["message"]["type"] == "downloadProgress"
            shop.send(channel, COMMIT)  # and again, which changes nothing
        shop.send(channel, {"type": "cancelDownload" if committed else "cancelPlan"})
        assert "cancelled" in list(shop.packets(channel))[-1]["error"]["title"]
        go_on.set()


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
