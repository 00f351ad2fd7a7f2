"""The doors of leaves. That the trunk works without each leaf is tested in `tests/release`."""

import pytest

from lmstudio_integrations._support.leaves import door


def test_an_error_says_which_leaf_was_deleted() -> None:
    with (
        pytest.raises(ImportError, match=r"without `frobnicate`: it has no module lmstudio_integrations\.frobnication"),
        door("`frobnicate`"),
    ):
        import lmstudio_integrations.frobnication  # type: ignore[import-not-found]  # noqa: F401


def test_a_package_that_a_leaf_needs_is_not_the_leaf() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'frobnication'$"), door("`frobnicate`"):
        import frobnication  # type: ignore[import-not-found]  # noqa: F401
