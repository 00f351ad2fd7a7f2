"""The conversion of all-MiniLM-L6-v2."""

import contextlib
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, gguf, load_parameters, weights
from lmstudio_integrations.emulator.engines.llama_cpp.gguf import read_header, to_metadata


@pytest.mark.slow
@pytest.mark.parametrize("name", list(weights.BUNDLES))
def test_the_known_metadata_of_bundled_weights_is_that_of_the_files(name: str, tmp_path: Path) -> None:
    bundle = weights.BUNDLES[name]
    first, *others = weights.locate(bundle, offline=True)
    path = first
    if first.suffix != ".gguf":
        path = tmp_path / "converted.gguf"
        gguf.convert(first, others[0], path)
    found = to_metadata(read_header(path), first.stat().st_size, vision=False)
    assert found == LlamaCppEngine(threads=1).metadata(name, bundle.kind)
    assert load_parameters.is_embedding(read_header(path)) == (bundle.kind == "embedding")


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
        gguf.convert(first, others[0], tmp_path / "converted.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["converted.gguf"]
