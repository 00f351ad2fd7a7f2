"""llama.cpp's error responses."""

import importlib.metadata

import pytest

from lmstudio_integrations.emulator.engines.base import load_failed
from lmstudio_integrations.emulator.engines.llama_cpp.responses import error_from_response, unsupported, without_vision
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.protocol.errors import to_exception

JINJA = "\n------------\nWhile executing CallExpression at line 1\nError: Jinja Exception: No user query found."


@pytest.mark.parametrize(
    "message",
    [
        "request (9 tokens) exceeds the available context size (5 tokens), try increasing it",
        "Context size has been exceeded.",
        JINJA,
        "Automatic: JSON schema error at #: no",
        "failed to parse grammar",
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "logprobs is not supported with tools + stream",
        "odd",
    ],
)
def test_the_words_of_the_engine_are_passed_on(message: str) -> None:
    error = error_from_response({"error": {"code": 400, "message": message, "type": "invalid_request_error"}})
    assert error.to_dict() == {
        "title": message,
        "rootTitle": message,
        "errorData": {"code": 400, "type": "invalid_request_error"},
    }


def test_a_model_without_vision_has_the_words_of_the_engine_in_newer_versions() -> None:
    error = without_vision()
    assert error.title_in((0, 3, 15)) == "Model does not support images. Please use a model that does."
    assert (
        error.title
        == error.title_in((0, 4))
        == "image input is not supported - hint: if this is unexpected, " + ("you may need to provide the mmproj")
    )
    for version in ((0, 3, 15), (0, 4)):
        assert isinstance(to_exception({"title": error.title_in(version)}, "RPC"), LMStudioUnsupportedError)


def test_an_engine_without_memory_says_which_setting_of_the_emulator_gives_it_more() -> None:
    error = error_from_response({"error": {"message": "Jinja Exception: std::bad_alloc"}})
    assert error.title == "Jinja Exception: std::bad_alloc"
    assert "worker_memory" in str(error.suggestion)


def test_a_response_that_is_no_error_object_is_shown_as_it_is() -> None:
    assert error_from_response({"error": "<html>"}).title == "{'error': '<html>'}"


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
