"""Texts that a regular expression matches."""

import pytest

from lmstudio_integrations.emulator.engines.scripted.regex_sample import UnsupportedPatternError, sample


@pytest.mark.parametrize(
    "pattern", ["(?!a)b", "(a", "a)", "*", r"\1", "(?<=x)y", "[z-a]", "a**", "(a{999}){999}", "[^\x00-\U0010ffff]"]
)
def test_unsupported_patterns_are_an_error(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        sample(pattern)


def test_more_repeats_make_a_longer_text() -> None:
    assert [sample("^(a|bb+)*c{2,3}$", repeats) for repeats in (0, 1, 2)] == ["cc", "bbbccc", "bbbbbbbbccc"]
