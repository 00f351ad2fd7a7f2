"""`serve` with weights: what it offers without flags, and what WEIGHTS and a folder name."""

from pathlib import Path
from typing import Literal

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli._serve import build_catalog, scripted_entries
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ((), {**dict.fromkeys(BUNDLED, "llama_cpp"), **{entry.key: "scripted" for entry in scripted_entries()}}),
        (("qwen=smollm2-135m-instruct",), {"qwen": "llama_cpp"}),
    ],
    ids=["no flags", "any key over bundled weights"],
)
def test_real_models_are_served(models: tuple[str, ...], expected: dict[str, str]) -> None:
    assert {model.key: model.engine for model in build_catalog(models).models} == expected


def test_a_folder_offers_its_files(tmp_path: Path) -> None:
    (tmp_path / "Some-Model.gguf").write_bytes(b"GGUF")
    (model,) = build_catalog(path=tmp_path).models
    assert (model.key, model.engine) == ("some-model", "llama_cpp")


def test_the_first_agent_works_on_the_models_that_are_served_without_flags() -> None:
    def pier(destination: Literal["island", "harbor"]) -> str:
        """Return the pier of the ferries to a destination."""
        return f"Ferries to the {destination} leave from pier 7."

    with Emulator(build_catalog().models) as server, lms.Client(server.address) as client:
        model = client.llm.model("scripted-tools")
        written: list[str] = []
        result = model.act("From which pier?", [pier], on_message=lambda message: written.append(str(message)))
        assert result.rounds == 2
        assert "I am a scripted model. The tool returned: " in written[-1]
        assert "Ferries to the island leave from pier 7." in written[-1]
        assert model.respond("And without tools?").content.startswith('You said "And without tools?"')


@pytest.mark.leaf
def test_a_reranker_is_served_without_flags() -> None:
    texts = ["The library opens at nine.", "The swimming pool costs four euros."]
    with Emulator(build_catalog().models) as server, lms.Client(server.address) as client:
        reranker = client.llm.model("scripted-reranker", load_policy="explicit")
        assert [each.index for each in reranker.rerank("What does the pool cost?", texts)] == [1, 0]
