"""Which slot a conversation gets, without an engine."""

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp.slots import Slot, Slots, choose
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint


def fingerprint(parts: str) -> PromptFingerprint:
    """The fingerprint of tools, a system message and turns, each a letter; a digit is a short one."""
    sizes = tuple(5 if part.isdigit() else 100 for part in parts)
    return PromptFingerprint(tuple(map(ord, parts)), min(2, len(parts)), sizes=sizes)


@pytest.mark.parametrize(
    ("idle", "parts", "number", "is_pinned"),
    [
        pytest.param({0: None, 1: None}, "TSab", 0, True, id="none is used"),
        pytest.param({0: "TSab", 1: "TSx"}, "TSxy", 1, True, id="its own"),
        pytest.param({0: "TSab", 1: None}, "TSx", 1, True, id="an empty one, not that with the same system prompt"),
        pytest.param({1: "TSab", 0: "TSc"}, "TSx", 1, False, id="the one that was idle for longest, by the engine"),
        pytest.param({0: "TSab", 1: "TS"}, "TSx", 1, True, id="one that was warmed up"),
        pytest.param({0: "TSab", 1: "TS1", 2: None}, "TSx", 1, True, id="one with a short question"),
        pytest.param({0: "TSab", 1: "TSac"}, "TSab", 0, True, id="the longer beginning"),
        pytest.param({0: "TSx", 1: "TSabcd"}, "TSscd", 1, True, id="a summary of the last messages"),
        pytest.param({0: "TSab1", 1: "TSx"}, "TSy1", 0, False, id="a short question that many ask"),
        pytest.param({0: "TSab", 1: "TSx"}, "tSab", 0, True, id="other tools, same messages"),
        pytest.param({0: "TSab", 1: "TSx"}, "tsyz", 0, False, id="nothing in common"),
        pytest.param({0: "TSab"}, "", 0, False, id="an embedding"),
    ],
)
def test_a_conversation_gets_the_slot_that_has_it(
    idle: dict[int, str | None], parts: str, number: int, is_pinned: bool
) -> None:
    slots = {each: None if cached is None else fingerprint(cached) for each, cached in idle.items()}
    slot = choose(slots, fingerprint(parts))
    assert (slot.number, slot.is_pinned) == (number, is_pinned)


async def respond(slots: Slots, parts: str, number: int | None = None) -> Slot:
    """Run a prediction, by default where it is expected to run."""
    async with slots.use(fingerprint(parts)) as slot:
        slot.has_begun = slot.has_ended = True
        slot.number = slot.number if number is None else number
    return slot


async def test_the_slot_that_the_engine_chose_has_the_conversation() -> None:
    slots = Slots(3)
    for parts in ("TSa", "TSb", "TSc"):
        await respond(slots, parts)
    assert not (await respond(slots, "TSd", 2)).is_pinned
    assert [(await respond(slots, parts)).number for parts in ("TSdd", "TSaa", "TSbb")] == [2, 0, 1]


async def test_a_number_that_the_engine_cannot_have_chosen_is_ignored() -> None:
    slots = Slots(2)
    async with slots.use(fingerprint("TSa")):
        assert (await respond(slots, "TSb", 0)).number == 1
    assert (await respond(slots, "TSbc")).number == 1


async def test_a_prediction_that_never_began_leaves_the_slot_as_it_was() -> None:
    slots = Slots(2)
    for parts in ("TSa", "TSb"):
        await respond(slots, parts)
    with pytest.raises(ValueError, match="rejected"):
        async with slots.use(fingerprint("TSc")) as slot:
            raise ValueError("rejected")
    assert not slot.is_pinned
    assert [(await respond(slots, parts)).number for parts in ("TSaa", "TSbb")] == [0, 1]


async def test_nothing_is_known_of_the_slot_of_a_prediction_that_was_cancelled() -> None:
    slots = Slots(2)
    for parts in ("TSa", "TSb"):
        await respond(slots, parts)
    async with slots.use(fingerprint("TSc")) as slot:
        slot.has_begun = True
    cancelled = slot.number
    slot = await respond(slots, "TScc")
    assert (slot.number, slot.is_pinned) == (1 - cancelled, False)
