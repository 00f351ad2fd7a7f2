"""No raw exception leaves any surface, whatever a server sends; more calls than here: `python -m tests.fuzz`."""

import pytest

from tests.fuzz.runner import fuzz


@pytest.mark.slow
@pytest.mark.parametrize("surface", ["native", "native async", "langchain", "llama_index"])
def test_malformed_packets_raise_typed_errors_only(surface: str) -> None:
    report = fuzz(seed=7, calls=240, only=surface)
    assert not report.raw, report.raw[0]
    assert report.outcomes[surface, "returned"] > 15, "most calls fail, and little is read"
    assert len(report.outcomes) > 5, "few kinds of errors were met"
