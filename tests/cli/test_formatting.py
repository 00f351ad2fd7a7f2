"""How commands write sizes and long lines."""

import pytest

from lmstudio_integrations.cli._formatting import model_size, wrapped


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "-"), (999, "999 B"), (1000, "1.00 kB"), (2_500_000, "2.50 MB"), (4_683_073_184, "4.68 GB")],
)
def test_the_size_of_a_model_is_shown_in_the_unit_that_fits(count: int, text: str) -> None:
    assert model_size(count) == text


def test_a_line_is_wrapped_between_words_unless_its_width_is_unknown() -> None:
    assert wrapped("one two three", 8) == "one two\n    three"
    assert wrapped("one two three", None) == "one two three"
