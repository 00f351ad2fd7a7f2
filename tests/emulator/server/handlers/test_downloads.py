"""The endpoints that search and download models.

The official SDK plans downloads, and finds recommended models: `tests/conformance/official_typescript/test_broad.py`.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator
from tests.emulator.bare_client import Wire, wire
from tests.emulator.server.handlers.models import ABSENT, BLIND, CHAT, VECTORS

pytestmark = pytest.mark.leaf


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server of its own for each test: a download changes it."""
    with Emulator(catalog=Catalog(models=(CHAT, BLIND, VECTORS, ABSENT))) as emulator:
        yield emulator


@pytest.fixture
def shop(server: Emulator) -> Iterator[Wire]:
    with wire(server, "repository") as opened:
        yield opened


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
    with Emulator(["chatty", "chat"]) as other, wire(other, "repository") as me:
        (found,) = me.result("searchModels", {"opts": {"searchTerm": "Chat", "limit": 1}})["results"]
        assert found["name"] == "chat", "the limit does not cut off the exact one"


def test_a_model_is_downloaded_and_then_loaded(server: Emulator, me: Wire, shop: Wire) -> None:
    with wire(server, "system") as system:
        sizes = [info["sizeBytes"] for info in system.result("listDownloadedModels")]
        assert min(sizes) > 0, "clients divide by them"
    identifier = {"type": "catalog", "identifier": "absent"}
    (option,) = shop.result("getModelDownloadOptions", {"modelSearchResultIdentifier": identifier})["results"]
    assert (option["sizeBytes"], option["fitEstimation"]) == (10, "fitWithoutGPU")
    packets = shop.stream("downloadModel", {"downloadIdentifier": option["downloadIdentifier"]})
    assert [packet["type"] for packet in packets] == [*["downloadProgress"] * 2, "startFinalizing", "success"]
    assert me.get(packets[-1]["defaultIdentifier"])[-1]["type"] == "loadSuccess"
    assert "nothing" in shop.stream("downloadModel", {"downloadIdentifier": "nothing"})[-1]["error"]["title"]
