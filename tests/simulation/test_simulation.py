"""Some seeds, each a program of its own; and that a seed always plays the same."""

import pytest

from tests.simulation.program import run


@pytest.mark.parametrize("hundred", range(4))
@pytest.mark.slow
def test_what_must_hold_holds(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 25):
        run(seed)


def test_a_seed_always_plays_the_same() -> None:
    assert run(59) == run(59)
