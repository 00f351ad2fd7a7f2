"""The conversion of all-MiniLM-L6-v2."""

import contextlib
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines import weights
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters, minilm
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import (
    read_header,
    to_metadata,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(weights.BUNDLES))
def test_the_known_metadata_of_bundled_weights_is_that_of_the_files(name: str, tmp_path: Path) -> None:
    bundle = weights.BUNDLES[name]
    first, *others = weights.locate(bundle, offline=True)
    path = first
    if first.suffix != ".gguf":
        path = tmp_path / "converted.gguf"
        minilm.convert(first, others[0], path)
    found = to_metadata(read_header(path), first.stat().st_size, vision=False)
    assert found == LlamaCppEngine(threads=1).metadata(name, bundle.kind)
    assert load_parameters.is_embedding(read_header(path)) == (bundle.kind == "embedding")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.word_embeddings.weight", "token_embd.weight"),
        ("embeddings.position_embeddings.weight", "position_embd.weight"),
        ("embeddings.token_type_embeddings.weight", "token_types.weight"),
        ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
        ("encoder.layer.3.attention.self.query.weight", "blk.3.attn_q.weight"),
        ("encoder.layer.0.attention.output.LayerNorm.bias", "blk.0.attn_output_norm.bias"),
        ("encoder.layer.5.output.dense.weight", "blk.5.ffn_down.weight"),
        ("encoder.layer.5.output.LayerNorm.weight", "blk.5.layer_output_norm.weight"),
    ],
)
def test_each_tensor_gets_llama_cpps_name(name: str, expected: str) -> None:
    assert minilm.tensor_name(name) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [("[CLS]", ("[CLS]", 3)), ("[unused7]", ("[unused7]", 5)), ("##ing", ("ing", 1)), ("run", ("\u2581run", 1))],
)
def test_each_vocabulary_entry_gets_llama_cpps_spelling(word: str, expected: tuple[str, int]) -> None:
    assert minilm.vocabulary_entry(word) == expected


@pytest.mark.slow
@pytest.mark.parametrize("is_same", [True, False])
def test_a_file_that_windows_does_not_replace_must_be_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_same: bool
) -> None:
    def replace(path: Path, target: Path) -> None:
        """Fail as on Windows, where another process has opened the target."""
        target.write_bytes(path.read_bytes() if is_same else b"other")
        raise PermissionError

    first, *others = weights.locate(weights.BUNDLES["text-embedding-all-minilm-l6-v2"], offline=True)
    monkeypatch.setattr(Path, "replace", replace)
    with contextlib.nullcontext() if is_same else pytest.raises(PermissionError):
        minilm.convert(first, others[0], tmp_path / "converted.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["converted.gguf"]
