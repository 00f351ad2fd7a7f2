"""Errors of the server, with the suggestion that the client adds: a command, a setting, the model that was meant."""

from typing import Any

import pytest

from lmstudio_integrations._support import suggestions
from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.errors import LMStudioContextOverflowError
from lmstudio_integrations.protocol.errors import to_exception, with_window
from tests.protocol.test_errors import DISPLAY


@pytest.mark.parametrize("code", DISPLAY)
def test_the_suggestion_about_an_error_code_helps(code: str) -> None:
    members, kind, help_ = DISPLAY[code]
    error = to_exception({"title": "Title", "displayData": {"code": code, **members}}, "Model load")
    assert type(error) is kind
    assert help_ in (error.suggestion or "")
    assert help_ in str(error)


@pytest.mark.parametrize("code", DISPLAY)
def test_malformed_details_give_no_suggestion_and_no_other_error(code: str) -> None:
    members, kind, _ = DISPLAY[code]
    junks: list[Any] = [None, 5, "text", [None], [[]], {"a": []}]
    for junk in junks:
        for malformed in [dict.fromkeys(members, junk), {}]:
            details = {"title": "t", "displayData": {"code": code, **malformed}}
            assert type(to_exception(details, "RPC")) is kind


def test_a_model_that_is_not_loaded_gets_one_remedy() -> None:
    members = {"query": {"path": "a/b"}, "loadedModelsSample": ["c"]}
    display = {"code": "generic.noModelMatchingQuery", **members}
    text = "loaded are c; load it with `lms load a/b`"
    assert text in str(to_exception({"title": "t", "displayData": display}, "Model get"))


def test_one_odd_preset_hides_no_other() -> None:
    presets = [5, {"name": "Nameless"}, {"identifier": "brief", "name": "Brief"}]
    display = {
        "code": "generic.presetNotFound",
        "specifiedFuzzyPresetIdentifier": "x",
        "availablePresetsSample": presets,
        "totalAvailablePresets": 3,
    }
    assert "available are brief" in str(to_exception({"title": "t", "displayData": display}, "RPC"))


def test_the_suggestion_of_the_server_comes_first() -> None:
    members, _, help_ = DISPLAY["generic.presetNotFound"]
    display = {"code": "generic.presetNotFound", **members}
    error = to_exception({"title": "t", "suggestion": "Check the name.", "displayData": display}, "RPC")
    assert (error.suggestion or "").startswith("Check the name.")
    assert help_ in (error.suggestion or "")


@pytest.mark.parametrize(
    ("path", "sample", "text"),
    [
        ("zzz", ["qwen", "llama"], "qwen, llama"),
        ("zzz", [], "no model of this kind is downloaded; download it with `lms get zzz`"),
        ("gpt-oss-20b", ["gemma-3-4b"], "downloaded are gemma-3-4b; download it with `lms get gpt-oss-20b`"),
        (
            "gema-3-4b",
            ["google/gemma-3-4b"],
            "Did you mean 'google/gemma-3-4b'? If not, download it with `lms get gema-3-4b`",
        ),
        ("Gemma3-4b", ["google/gemma-3-4b"], "did you mean 'google/gemma-3-4b'?"),
        ("chaty", ["maker/Chatty-GGUF/chatty.q4.gguf"], "Did you mean 'maker/Chatty-GGUF/chatty.q4.gguf'?"),
        ("a b", [], "`lms get 'a b'`"),
        ("lmstudio:qwen/qwen3-4b", ["qwen/qwen3-4b"], "Did you mean 'qwen/qwen3-4b'? If not"),
        ("Orca@q8_0", ["acme/orca"], "Did you mean 'acme/orca'? If not, download it with `lms get Orca@q8_0`"),
        ("orca@q8_0", ["local/acme/llama"], "download it with `lms get orca@q8_0`"),
        ("qwen2.5-7b-instrct", ["maker/qwen2.5-7b-instruct"], "'maker/qwen2.5-7b-instruct'"),
        # A part of the path, without its format:
        ("orca-mini-3b", ["acme/orca-mini-3b", "llama"], "Did you mean 'acme/orca-mini-3b'? If"),
        ("orca", ["acme/orca", "acme/orca-2", "maker/orca"], "Did you mean 'acme/orca' or 'maker/orca'? If"),
        ("orca.gguf", ["acme/Orca-GGUF/orca.gguf"], "Did you mean 'acme/Orca-GGUF/orca.gguf'? If"),
        ("orca-min", ["local/orca-mini.gguf"], "Did you mean 'local/orca-mini.gguf'? If"),
        ("qwen3.8-27b", ["incoai/Qwen3.8-27B-Splash/model"], "Did you mean 'incoai/Qwen3.8-27B-Splash/model'? If"),
        # Its beginning:
        ("acme/orca-mini", ["acme/orca-mini-3b", "acme/llama"], "Did you mean 'acme/orca-mini-3b'? If"),
        ("qwen/qwen3-4b", ["qwen/qwen3-vl-4b", "qwen/qwen3-4b-2507"], "Did you mean 'qwen/qwen3-4b-2507'? If"),
        ("orca", ["acme/orca-3b", "acme/orca-7b"], "Did you mean 'acme/orca-3b' or 'acme/orca-7b'? If"),
        ("acme/orca", ["acme/orca"], "downloaded are acme/orca; download it"),  # what failed is not suggested
    ],
)
def test_an_unknown_model_gets_a_suggestion(path: str, sample: list[str], text: str) -> None:
    display = {"code": "generic.pathNotFound", "path": path, "availablePathsSample": sample, "totalModels": len(sample)}
    assert text.lower() in str(to_exception({"title": "t", "displayData": display}, "RPC")).lower()


@pytest.mark.parametrize(
    ("used", "limit", "maximum", "text"),
    [
        (9000, 4096, None, "or load the model with context_length=16384; a loaded"),
        (9000, 4096, 131072, "or load the model with context_length=16384; a loaded"),
        (9000, 4096, 10000, "or load the model with context_length=10000; a loaded"),
        (9000, 4096, 9000, "suggestion: shorten the prompt: this model takes at most 9000 tokens"),
        (9000, 4096, 8192, "suggestion: shorten the prompt: this model takes at most 8192 tokens"),
        (9000, 8192, 8192, "suggestion: shorten the prompt: this model takes at most 8192 tokens"),
        (None, None, 8192, "or load the model with context_length=8192; a loaded"),
    ],
)
def test_the_suggestion_about_a_long_prompt_respects_the_models_maximum(
    used: int | None, limit: int | None, maximum: int | None, text: str
) -> None:
    numbers = f"n_keep {used} >= n_ctx {limit}" if used else "exceeds the context"
    error = to_exception({"title": numbers}, "RPC")
    assert isinstance(error, LMStudioContextOverflowError)
    bounded = with_window(error, None, maximum)
    assert text in str(bounded)
    assert str(bounded).endswith(f"suggestion: {bounded.suggestion}")
    assert str(with_window(bounded, None, maximum)) == str(bounded), "it is suggested once"
    assert (bounded.used, bounded.limit) == (used, limit)
    assert with_window(error, 512, maximum).limit == (limit or 512)


@pytest.mark.parametrize("code", [code for code, (members, _, _) in DISPLAY.items() if members])
def test_long_names_and_long_lists_are_cut(code: str) -> None:
    members = DISPLAY[code][0]
    name = "model " * 10_000
    long = {
        member: [{"identifier": name}] * 1_000
        if member == "availablePresetsSample"
        else [name] * 1_000
        if isinstance(value, list)
        else name
        for member, value in members.items()
    }
    error = to_exception({"title": "Oh no", "displayData": {"code": code, **long}}, "Model load")
    assert type(error) is DISPLAY[code][1]
    assert len(str(error)) < 10_000


def test_suggestions_compare_a_bounded_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, list[str]]] = []

    def compare(name: str, known: list[str], **_: object) -> list[str]:
        compared.append((name, known))
        return []

    monkeypatch.setattr(suggestions, "get_close_matches", compare)
    closest_names("model", ["a" * 1_000, *(f"model{number}" for number in range(10_000))])
    assert closest_names("m" * 1_000, ["model"]) == []
    ((_, known),) = compared
    assert len(known) < 200
    assert max(map(len, known)) < 200
