"""Of a cassette that is damaged, or made by hand, only typed errors come; more: see `mutants`."""

from pathlib import Path

import pytest

from tests.emulator.testing.cassettes.mutants import use_mutants


@pytest.mark.slow
def test_mutated_cassettes_raise_typed_errors_only(tmp_path: Path) -> None:
    outcomes = use_mutants(tmp_path, 1, 300)
    assert outcomes.keys() == {"rejected", "read"}
    assert min(outcomes.values()) > 100
