"""Files with models that cannot be read: each is an error that names the file."""

import os
import sys
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.models import catalog
from lmstudio_integrations.errors import LMStudioError


@pytest.mark.parametrize("depth", [450, 5000])
def test_a_catalog_that_is_nested_too_deeply_is_named(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f'[[preset]]\nidentifier = "p"\nstructured = {"[" * depth}{"]" * depth}\n', encoding="utf-8")
    with pytest.raises(LMStudioError, match=r"deep.toml.*(is nested too deeply|should be a valid)"):
        catalog.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_folder_that_may_not_be_entered_is_an_error_of_the_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "locked" / "model.gguf"
    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(LMStudioError, match=r"cannot read the catalog '.*': Permission denied"):
        catalog.load(path)
    with pytest.raises(LMStudioError, match="there is no file with the weights"):
        catalog.check_weights(catalog.Catalog(models=(catalog.ModelEntry(key="m", weights=str(path)),)))
