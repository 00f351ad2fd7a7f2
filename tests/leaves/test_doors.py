"""The doors of leaves: what they say of one that was deleted, that nothing else imports one, and what goes with it."""

import sys
import tomllib
from importlib import import_module
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from tools import ROOT
from tools import leaves as tool
from tools.leaves import find_indirect, leaves, sources


def test_an_error_says_which_leaf_was_deleted() -> None:
    with (
        pytest.raises(ImportError, match=r"without `frobnicate`: it has no module lmstudio_integrations\.frobnication"),
        door("`frobnicate`"),
    ):
        import lmstudio_integrations.frobnication  # type: ignore[import-not-found]  # noqa: F401


def test_a_package_that_a_leaf_needs_is_not_the_leaf() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'frobnication'$"), door("`frobnicate`"):
        import frobnication  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize(
    ("package", "name", "module"),
    [
        ("langchain", "LMStudioReranker", "rerankers"),
        ("langchain.middleware", "ToolSearchMiddleware", "tool_search"),
        ("llama_index", "LMStudioSelector", "decisions"),
    ],
)
def test_a_public_name_says_that_its_module_was_deleted(
    package: str, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"lmstudio_integrations.{package}.{module}"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"is without {name}: it has no module {module}\.$"):
        getattr(import_module(f"lmstudio_integrations.{package}"), name)


@pytest.mark.leaf
def test_a_client_is_told_what_its_server_is_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.emulator.server.handlers.downloads", None)
    with (
        Emulator(["m"]) as server,
        lms.Client(server.address) as client,
        pytest.raises(lms.LMStudioServerError, match="is without downloads in the emulator: it has no module"),
    ):
        client.repository.search_models("m")


def test_a_catalog_of_plugins_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.emulator.models.plugins", None)
    with pytest.raises(ImportError, match="is without plugins in the emulator: it has no module"):
        Emulator(["m"], plugins={"mcp/sums": [sum]})
    with pytest.raises(ImportError, match="is without plugins in the emulator: it has no module"):
        import_module("lmstudio_integrations.emulator").PluginEntry  # noqa: B018 - raises


@pytest.mark.parametrize(
    "catalog",
    [
        {"device": [{"name": "laptop"}]},
        {"memory_gib": 8},
        {"model": [{"key": "m", "memory_gib": 8}]},
        {"model": [{"key": "m", "kib_per_token": 8}]},
        {"model": [{"key": "m", "estimate_factor": 2}]},
    ],
)
def test_a_catalog_of_devices_or_memory_says_what_is_missing(
    catalog: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.emulator.models.devices", None)
    with pytest.raises(ImportError, match="is without the memory of devices, and LM Link, in the emulator: it has no"):
        Emulator(catalog=catalog)
    with pytest.raises(ImportError, match="is without the memory of devices"):
        import_module("lmstudio_integrations.emulator").DeviceEntry  # noqa: B018 - raises
    assert Emulator(["m"]).catalog.models, "one machine, whose memory always fits, needs no leaf"


def test_models_of_a_kind_that_a_copy_does_not_have_are_left_out_of_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.client.api.decisions.sync", None)
    entries = [ModelEntry(key="chat", preload=True), ModelEntry(key="judge", kind="decision", preload=True)]
    with Emulator(entries) as server, lms.Client(server.address) as client:
        assert [model.model_key for model in client.list_downloaded_models()] == ["chat"]
        assert [model.identifier for model in client.list_loaded_models()] == ["chat"]
        with pytest.raises(ImportError, match="is without decisions and rerankers"):
            client.list_loaded_models("decision")


def test_an_image_that_cannot_be_downloaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.client.files.fetch", None)
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with Emulator([ModelEntry(key="m", vision=True)]) as server:
        model = ChatLMStudio(model="m", host=server.address, allow_image_download=True)
        with pytest.raises(lms.LMStudioImageDownloadError, match=r"is without downloads of images: .*\.fetch, or pass"):
            model.invoke([HumanMessage([image])])


def test_each_leaf_is_protected_by_a_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    protected = [name for contract in contracts for name in contract.get("protected_modules", ())]
    named = [name for names in leaves().values() for name in names]
    assert [name for name in named if name not in protected] == []


@pytest.mark.slow
def test_a_leaf_takes_its_own_tests_only() -> None:
    found = {leaf: find_indirect(leaf) for leaf in leaves()}
    assert {leaf: paths for leaf, paths in found.items() if paths} == {}, "a helper of other tests imports a leaf"


@pytest.mark.slow
def test_a_helper_of_other_tests_that_imports_a_leaf_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    helper, module = "tests.support.virtual_time", "lmstudio_integrations.client.hosts.host"
    changed = [
        each._replace(imports=each.imports | {module} if each.name == helper else each.imports) for each in sources()
    ]
    monkeypatch.setattr(tool, "sources", lambda: changed)
    assert ROOT / "tests/client/transport/test_keepalive.py" in find_indirect("hosts")
