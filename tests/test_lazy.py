"""Modules that are imported when one of their names is first used."""

import sys

import pytest

from lmstudio_integrations._both_frameworks.lazy import LazyModule


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that is not imported yet."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    return "colorsys"


def test_a_lazy_module_is_imported_with_the_first_use_of_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = LazyModule(name)
    assert name not in sys.modules
    assert module.rgb_to_hls(1.0, 1.0, 1.0) == (0.0, 1.0, 0.0)
    assert name in sys.modules


def test_a_lazy_module_keeps_what_it_has_found() -> None:
    module = LazyModule("math")
    assert "pi" not in vars(module)
    assert module.pi is module.pi
    assert "pi" in vars(module)


def test_a_look_for_a_hook_imports_nothing(name: str) -> None:
    assert not hasattr(LazyModule(name), "__get_pydantic_core_schema__")
    assert name not in sys.modules


def test_a_lazy_module_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="tau_squared"):
        _ = LazyModule("math").tau_squared
