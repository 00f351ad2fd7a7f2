"""Which slot a conversation gets, without an engine."""

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp.slots import Slots, choose
from lmstudio_integrations.protocol.prompt_outline import PromptOutline


def outline(parts: str) -> PromptOutline:
    """The outline of tools, a system message and turns, each a letter; a digit is a short one."""
    sizes = tuple(5 if part.isdigit() else 100 for part in parts)
    return PromptOutline(tuple(map(ord, parts)), min(2, len(parts)), sizes=sizes)


@pytest.mark.parametrize(
    ("idle", "parts", "number", "is_pinned"),
    [
        ({0: None, 1: None}, "TSab", 0, True),
        ({0: "TSab", 1: None}, "TSabc", 0, True),
        ({0: "TSab", 1: "TSx"}, "TSxy", 1, True),
        ({0: "TSab", 1: None}, "TSx", 1, True),
        ({1: "TSab", 0: "TSc"}, "TSx", 1, False),
        ({0: "TSab", 1: "TS"}, "TSx", 1, True),
        ({0: "TSab", 1: "TS1", 2: None}, "TSx", 1, True),
        ({0: "TSab", 1: "TSac"}, "TSab", 0, True),
        ({0: "TSx", 1: "TSabcd"}, "TSscd", 1, True),
        ({0: "TSab1", 1: "TSx"}, "TSy1", 0, False),
        ({0: "TSab", 1: "TSx"}, "tSab", 0, True),
        ({0: "TSab", 1: "TSx"}, "tsyz", 0, False),
        ({0: "TSab"}, "", 0, False),
    ],
    ids=[
        "none is used",
        "its own",
        "its own of two",
        "an empty one, not that with the same system prompt",
        "the one that was idle for longest, by the engine",
        "one that was warmed up",
        "one with a short question",
        "the longer beginning",
        "a summary of the last messages",
        "a short question that many ask",
        "other tools, same messages",
        "nothing in common",
        "an embedding",
    ],
)
def test_a_conversation_gets_the_slot_that_has_it(
    idle: dict[int, str | None], parts: str, number: int, is_pinned: bool
) -> None:
    slots = {each: None if cached is None else outline(cached) for each, cached in idle.items()}
    slot = choose(slots, outline(parts))
    assert (slot.number, slot.is_pinned) == (number, is_pinned)


async def test_the_slot_that_the_engine_chose_has_the_conversation() -> None:
    slots = Slots(3)
    for parts in ("TSa", "TSb", "TSc"):
        async with slots.use(outline(parts)):
            pass
    async with slots.use(outline("TSd")) as slot:
        assert (slot.number, slot.is_pinned) == (0, False)
        slot.number = 2  # the engine thought otherwise
    for parts, number in (("TSdd", 2), ("TSaa", 0), ("TSbb", 1)):
        async with slots.use(outline(parts)) as slot:
            assert slot.number == number


async def test_a_number_that_the_engine_cannot_have_chosen_is_ignored() -> None:
    slots = Slots(2)
    async with slots.use(outline("TSa")) as first, slots.use(outline("TSb")) as second:
        assert (first.number, second.number) == (0, 1)
        second.number = 0
    async with slots.use(outline("TSbc")) as slot:
        assert slot.number == 1
