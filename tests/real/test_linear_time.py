"""What models wrote is read in steps in proportion to its length, as `tests/test_linear_time.py` counts them."""

from collections.abc import Callable

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_repair import MeantTools
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTools
from tests.real.corpus import Row, of_kind, parameters, tools_of
from tests.test_linear_time import steps, watch

_SHORT, _LONGER = 800, 4
"""The length of a text, and how many times as long the other is."""

FORMS: dict[str, Callable[[str], str]] = {
    "whole": lambda text: text,
    "its beginning": lambda text: text[: len(text) // 2],
    "its end": lambda text: text[len(text) // 2 :],
}
"""What is repeated: what its beginning begins does not end, and what its end ends did not begin."""


@pytest.mark.slow
@pytest.mark.sampled(20)
@pytest.mark.parametrize("row", parameters(of_kind("call", "cut", "not-call")))
def test_an_output_that_is_repeated_takes_as_many_more_steps(row: Row) -> None:
    tools = tools_of(row)
    readers: dict[bool, Callable[[str], object]] = {
        False: lambda written: watch(written, OfferedTools(tools), repairs=False),
        True: lambda written: watch(written, MeantTools(tools), repairs=True),
    }
    for form, part in FORMS.items():
        unit = part(row["payload"]["text"] or row["payload"]["reasoning"])
        times = _SHORT // len(unit) + 1
        for repairs, reader in readers.items():
            few, many = (steps(reader, unit * (times * length)) for length in (1, _LONGER))
            assert many <= 2 * _LONGER * few + _SHORT, (form, repairs)
