"""`data/_profiles.py`, the models that Deep Agents Code lists: it finds the file by its path, as is done here."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import lmstudio_integrations
from lmstudio_integrations.langchain import ChatLMStudio
from tests.langchain.conftest import CHAT, OTHER, PLAIN, Server
from tests.support.ports import free_port

PATH = Path(lmstudio_integrations.__file__).parent / "data" / "_profiles.py"


def execute() -> ModuleType:
    spec = spec_from_file_location("lmstudio_integrations.data._profiles", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_has_the_language_models_on_the_servers_disk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", server.address)
    profiles = execute()._PROFILES
    assert profiles.keys() == {CHAT, OTHER, PLAIN}
    assert [profiles[key]["tool_calling"] for key in (CHAT, PLAIN)] == [True, False]
    assert [profiles[key]["image_inputs"] for key in (CHAT, PLAIN)] == [True, False]


def test_a_profile_says_what_that_of_the_chat_model_says(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", server.address)
    profile = execute()._PROFILES[CHAT]
    loaded = ChatLMStudio(model=CHAT).load().profile
    assert profile.items() <= loaded.items()
    assert "max_input_tokens" in loaded.keys() - profile.keys()  # unknown before the model is loaded


def test_without_a_server_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", f"127.0.0.1:{free_port()}")
    assert getattr(execute(), "_PROFILES", None) == {}


def test_no_server_is_asked_before_the_list_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", server.address)
    assert not hasattr(execute(), "PROFILES")
    assert server.connections == ()
