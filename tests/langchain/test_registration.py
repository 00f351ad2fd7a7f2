"""`register`, which lets LangChain make our classes from strings, and the entry points by which deepagents calls it."""

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.chat_models import base as chat_models
from langchain.chat_models import init_chat_model
from langchain.embeddings import base as embeddings
from langchain.embeddings import init_embeddings

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioRuntimeError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, _registration, register
from lmstudio_integrations.langchain.middleware import RepeatedToolCallMiddleware
from tests.langchain.conftest import CHAT, COUNTED, OTHER, Server

GROUPS = ["deepagents.provider_profiles", "deepagents.harness_profiles"]
TABLES: list[dict[str, Any]] = [chat_models._BUILTIN_PROVIDERS, embeddings._BUILTIN_PROVIDERS]


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    """Let LangChain not know this package, and afterwards know it if it did."""
    before = [dict(table) for table in TABLES]
    for table in TABLES:
        table.pop("lmstudio", None)
    chat_models._get_chat_model_creator.cache_clear()
    embeddings._get_embeddings_class_creator.cache_clear()
    yield
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()
        table.update(entries)


# Strings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: init_chat_model("lmstudio:qwen3-4b", top_k=7), ChatLMStudio(model="qwen3-4b", top_k=7)),
        (lambda: init_chat_model("lmstudio:qwen/qwen3-4b:2"), ChatLMStudio(model="qwen/qwen3-4b:2")),
        (lambda: init_chat_model("gpt-oss", model_provider="lmstudio"), ChatLMStudio(model="gpt-oss")),
        (lambda: init_embeddings("lmstudio:nomic", host="a:1"), LMStudioEmbeddings(model="nomic", host="a:1")),
        (lambda: init_embeddings("nomic", provider="lmstudio"), LMStudioEmbeddings(model="nomic")),
    ],
    ids=["chat", "key with a colon", "provider", "embeddings", "provider of embeddings"],
)
def test_a_string_makes_our_class_with_the_settings_once_registered(
    make: Callable[[], object], expected: object
) -> None:
    with pytest.raises(ValueError, match="provider"):
        make()
    register()
    assert make() == expected


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


def test_the_provider_and_the_model_are_chosen_in_the_config(server: Server) -> None:
    register()
    fields = ("model", "model_provider")
    model: Any = init_chat_model("gpt-5", configurable_fields=fields, host=server.address)
    ours = {"model": CHAT, "model_provider": "lmstudio"}
    assert model.bind_tools([weather]).invoke("count", config={"configurable": ours}).text == COUNTED
    assert server.last_request.tools
    model.invoke("count", config={"configurable": {**ours, "model": OTHER}})
    assert [prediction.model for prediction in server.predictions] == [CHAT, OTHER]


# Registering ----------------------------------------------------------------------------------------------------------


def test_registering_again_and_from_threads_changes_nothing_more() -> None:
    register()
    tables = [dict(table) for table in TABLES]
    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert tables == [*map(dict, TABLES)]


@pytest.fixture
def import_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Replaces how packages are imported."""
    return lambda importer: monkeypatch.setattr(_registration, "import_module", importer)


def no_module(name: str) -> Any:
    if name != "langchain.embeddings.base":
        return sys.modules[name]
    raise ModuleNotFoundError("No module named 'langchain.embeddings'", name="langchain.embeddings")


@pytest.mark.parametrize(
    "importer",
    [
        no_module,
        lambda name: sys.modules[name] if "chat" in name else SimpleNamespace(),
        lambda name: sys.modules[name] if "chat" in name else SimpleNamespace(_BUILTIN_PROVIDERS={"openai": "x"}),
    ],
    ids=["module", "table", "shape"],
)
def test_a_table_that_has_moved_is_one_error_that_names_the_remedy(
    importer: Callable[[str], Any], import_by: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    import_by(importer)
    with pytest.raises(
        LMStudioRuntimeError, match=r"langchain [\d.]+ has no table langchain.embeddings.*\(model="
    ) as e:
        register()
    assert 'LMStudioEmbeddings(model="KEY")' in str(e.value)
    assert "lmstudio" not in TABLES[0], "it is entered in both or in none"

    with caplog.at_level(logging.WARNING):
        _registration.register_or_log()
    assert "has no table" in caplog.text


@pytest.mark.parametrize(
    ("missing", "small_window"), [("langchain", False), ("deepagents", True)], ids=["langchain", "deepagents"]
)
def test_a_missing_package_is_named_with_the_command(
    missing: str, small_window: bool, import_by: Callable[[Any], None]
) -> None:
    def importer(name: str) -> Any:
        if name.startswith(missing):
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return sys.modules[name]

    import_by(importer)
    with pytest.raises(ModuleNotFoundError, match=rf"^register needs {missing}; run: .*pip install {missing}$"):
        register(small_window=small_window)
    _registration.register_or_log()


def test_a_package_that_langchain_misses_is_not_mistaken_for_langchain(import_by: Callable[[Any], None]) -> None:
    def importer(_name: str) -> Any:
        raise ModuleNotFoundError("No module named 'langgraph'", name="langgraph")

    import_by(importer)
    with pytest.raises(ModuleNotFoundError, match="langgraph"):
        register()


# deepagents -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def profiles() -> Iterator[dict[str, Any]]:
    """The harnesses of deepagents, which the test may change."""
    pytest.importorskip("deepagents", reason="needs the group cookbook")
    from deepagents.profiles.harness.harness_profiles import _HARNESS_PROFILES, _ensure_harness_profiles_loaded

    _ensure_harness_profiles_loaded()
    before = dict(_HARNESS_PROFILES)
    _registration._register_small_window.cache_clear()
    yield _HARNESS_PROFILES
    _registration._register_small_window.cache_clear()
    _HARNESS_PROFILES.clear()
    _HARNESS_PROFILES.update(before)


@pytest.mark.slow
def test_the_entry_points_import_no_client_and_no_adapter() -> None:
    script = (
        "import json, sys; from importlib.metadata import entry_points\n"
        f"found = [entry.load() for group in {GROUPS} for entry in entry_points(group=group, name='lmstudio')]\n"
        "print(json.dumps([len(found), sorted(sys.modules)]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    found, modules = json.loads(run.stdout)
    assert found == len(GROUPS)
    ours = [name for name in modules if name.startswith("lmstudio_integrations.")]
    assert not [name for name in ours if re.search(r"\.client|\.types|\.protocol|chat_models|embeddings", name)]
    assert not {"langchain", "langchain_core", "pydantic", "websockets"} & {*modules}


@pytest.mark.parametrize("group", GROUPS)
def test_installing_changes_no_agent(group: str, profiles: dict[str, Any]) -> None:
    before = dict(profiles)
    (entry,) = entry_points(group=group, name="lmstudio")
    entry.load()()
    assert profiles == before
    assert "lmstudio" not in profiles
    assert init_chat_model("lmstudio:m") == ChatLMStudio(model="m")


def tools_of(server: Server, **settings: Any) -> list[Any]:
    """Return the tools of a deep agent, as its model gets them."""
    from deepagents import create_deep_agent

    agent: Any = create_deep_agent(server.chat(), **settings)
    agent.invoke({"messages": [("user", "count")]})
    return server.predictions[-1].tools


def test_a_small_window_gets_fewer_tools_also_if_it_is_registered_twice(
    server: Server, profiles: dict[str, Any]
) -> None:
    register(small_window=True)
    once = profiles["lmstudio"]
    register(small_window=True)
    assert profiles["lmstudio"] == once
    names = {tool["function"]["name"] for tool in tools_of(server)}
    assert names == {"ls", "read_file", "write_file", "edit_file"}
    reviewer = {"name": "reviewer", "description": "Reviews texts.", "system_prompt": "Review the text."}
    (task,) = [tool for tool in tools_of(server, subagents=[reviewer]) if tool["function"]["name"] == "task"]
    assert "reviewer: Reviews texts." in task["function"]["description"]
    assert "general-purpose" not in task["function"]["description"]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.usefixtures("profiles")
def test_a_small_window_ends_loops_unless_the_agent_has_its_own_middleware(own: bool) -> None:
    from deepagents import create_deep_agent

    register(small_window=True)
    loop = ({"then": [{"tool": "ls", "arguments": {"path": "/"}}]},)
    mine: Any = [RepeatedToolCallMiddleware(most=2)] if own else []
    with Server([ModelEntry(key="loop", rules=loop)]) as server:
        agent: Any = create_deep_agent(server.chat(model="loop"), middleware=mine)
        messages = agent.invoke({"messages": [("user", "count")]})["messages"]
    assert messages[-1].response_metadata["repeated_tool_call"]["count"] == (4 if own else 6)


def test_a_small_window_works_without_a_middleware_that_was_deleted(
    profiles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmstudio_integrations.langchain.middleware.repeated_tool_calls", None)
    register(small_window=True)
    assert [type(each).__name__ for each in profiles["lmstudio"].extra_middleware] == ["InvalidToolCallMiddleware"]
