"""Some seeds, each a program of its own; and that a seed always plays the same."""

import pytest

from tests.simulation.program import run


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, 10))
def test_what_must_hold_holds(first: int) -> None:
    for seed in range(first, first + 10):
        run(seed)


def test_a_seed_always_plays_the_same() -> None:
    assert run(59) == run(59)
