"""llama.cpp's error responses."""

import importlib.metadata
from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import load_failed
from lmstudio_integrations.emulator.engines.llama_cpp.responses import error_from_response, unsupported


@pytest.mark.parametrize(
    ("error", "title"),
    [
        ({"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5}, "first 9 tokens"),
        ({"message": "Jinja Exception: roles"}, "Error rendering prompt with jinja template"),
        ({"message": "Automatic: JSON schema error at #: no"}, "setting: JSON schema error at #: no"),
        ({"message": "Context size has been exceeded."}, "exceed the available context"),
        ({"message": "failed to parse grammar"}, "grammar cannot be parsed"),
        ({"message": "Jinja Exception: std::bad_alloc"}, "ran out of memory"),
        ({"message": "odd"}, "odd"),
        ("<html>", "{'error': '<html>'}"),
    ],
)
def test_errors_of_the_engine_have_the_messages_of_a_real_server(error: Any, title: str) -> None:
    assert title in error_from_response({"error": error}).title


def test_an_unsupported_error_names_the_version_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    data = unsupported("vision", "no eyes").display_data or {}
    assert data["installedVersion"] == importlib.metadata.version("xllamacpp")

    def missing(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    data = unsupported("vision", "no eyes").display_data or {}
    assert (data["installedVersion"], data["supportedVersion"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("there is no file /home/me/m.gguf", "there is no file m.gguf"),
        ("'~/models/m.gguf' is cut off", "'m.gguf' is cut off"),
        (r"C:\Users\me\m.gguf and \\host\share\m.gguf", "m.gguf and m.gguf"),
        ("either/or, 1/2, https://example.com/a/b", "either/or, 1/2, https://example.com/a/b"),
    ],
)
def test_a_failed_load_does_not_reveal_directories(text: str, shown: str) -> None:
    assert load_failed(text).cause == shown
