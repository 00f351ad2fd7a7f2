"""Which slot runs a prediction."""

from collections.abc import Sequence

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp.slots import Slots, parts_of

SYSTEM = "s" * 100


def slots_of(*prompts: Sequence[str], count: int = 3) -> list[int]:
    """Return the slots that prompts get, one after the other."""
    slots, taken = Slots(count), list[int]()
    for parts in prompts:
        with slots.take(parts) as slot:
            taken.append(slot)
    return taken


def test_a_conversation_gets_its_slot_again_however_much_a_turn_adds() -> None:
    first, second = [SYSTEM, "a"], [SYSTEM * 3, "b"]
    assert slots_of(first, second, [*first, "c" * 1000], [*second, "d"], [*first, "c" * 1000, "e"]) == [0, 1, 0, 1, 0]


def test_a_prompt_that_begins_alike_gets_the_slot_of_another_only_if_that_has_most_of_it() -> None:
    assert slots_of([SYSTEM, "a" * 50], [SYSTEM, "b" * 50], [SYSTEM, "c"]) == [0, 1, 0]


def test_a_conversation_prefers_its_own_slot_to_one_that_has_more_of_it() -> None:
    assert slots_of([SYSTEM], [SYSTEM, "a" * 100, "b"], [SYSTEM, "a" * 100, "c"]) == [0, 0, 0]
    assert slots_of([SYSTEM, "a"], ["x", "y"], [SYSTEM, "a", "b"], ["x", "y", "z"]) == [0, 1, 0, 1]


def test_an_unknown_prompt_gets_the_slot_that_was_idle_for_longest() -> None:
    assert slots_of(["a"], ["b"], ["c"], ["a", "d"], ["e"], ["f"], ["g"]) == [0, 1, 2, 0, 1, 2, 0]


def test_a_slot_that_is_taken_is_not_given_again() -> None:
    slots = Slots(2)
    with slots.take(["a"]) as first, slots.take(["a"]) as second:
        assert {first, second} == {0, 1}


@pytest.mark.parametrize(("more", "slot"), [("y" * 200, 0), ("", 0)])
def test_a_text_is_continued_in_its_slot(more: str, slot: int) -> None:
    text = "x" * 70
    assert slots_of(parts_of(text), parts_of("z" * 70), parts_of(text + more)) == [0, 1, slot]
