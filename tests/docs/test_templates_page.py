"""The page on chat templates says what its tool writes, and the tool finds out what templates do."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from lmstudio_integrations.types.reasoning import Treatment
from lmstudio_integrations.types.reasoning_replay import ReasoningReplay
from tests.support import chat_templates, recurrent_model
from tools.templates import COLUMNS, NEVER, PAGE, Row, cells_of, examine, render_page

pytestmark = pytest.mark.leaf("llama_cpp")

TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)


def table() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]


def templates() -> list[list[str]]:
    """Return the cells of each template on the page."""
    return [
        [*template.removesuffix(")").split(" (")[:1], *shared, template.removesuffix(")").split(" (")[1]]
        for *shared, names in table()[2:]
        for template in names.split("; ")
    ]


def row_of(cells: Sequence[str]) -> Row:
    """Return what was found out, as far as the page has it."""
    name, reasoning, two_calls, remedies, shares = cells
    found = reasoning.removesuffix(", without tags")
    treatments = [each for word in found.split(", ") for each in TREATMENTS if each == word]
    current, earlier, answer = treatments * 3 if len(treatments) == 1 else treatments
    replay = ReasoningReplay(current, earlier, answer, is_bare=found != reasoning)
    found_shares = [None if share == NEVER else float(share.removesuffix("%")) / 100 for share in shares.split(", ")]
    sent, kept, ideal = (*found_shares, None, None)[:3]
    assert sent is not None
    calls = "shown" if "one call" in remedies or two_calls == "shown" else ""
    return Row(name, replay, calls, two_calls, kept is not None, sent, kept, ideal)


def test_the_page_has_what_its_tool_writes() -> None:
    assert table()[0] == [*COLUMNS]
    found = templates()
    assert [cells_of(row_of(cells)) for cells in found] == found
    names = [[each.split(" (")[0] for each in cells[-1].split("; ")] for cells in table()[2:]]
    assert names == [sorted(each, key=str.casefold) for each in names]
    page = PAGE.read_text(encoding="utf-8")
    assert page == render_page(page, [*map(row_of, found)], page.split("\n## The templates\n\n")[1].split("\n")[0])


def test_where_reasoning_is_moved_to_its_field_nothing_is_lost_against_the_field() -> None:
    moved = [row_of(cells) for cells in templates() if "moves reasoning" in cells[3]]
    assert len(moved) >= 7
    assert all(row.kept == row.ideal for row in moved)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recurrent_model.write(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.mark.slow
def test_a_template_that_reads_a_field_is_found(weights: Path) -> None:
    row = examine("field", chat_templates.TEMPLATES["reads_field_only"].source, weights)
    assert row.replay == ReasoningReplay("misplaced", "misplaced", "misplaced")
    assert (row.calls, row.two_calls, row.can_keep) == ("shown", "shown", True)
    assert row.kept == row.ideal == pytest.approx(1)
    assert row.sent < 0.95


CALLS = "{%- for call in message.tool_calls or [] %}"
ONE_CALL = {
    "rejected": f"{{%- if message.tool_calls | length > 1 %}}{{{{ raise_exception('one call') }}}}{{% endif %}}{CALLS}",
    "1 of 2 shown": CALLS.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("two_calls", ONE_CALL)
def test_a_template_that_takes_one_call_in_a_message_is_found(weights: Path, two_calls: str) -> None:
    source = chat_templates.TEMPLATES["keeps_running_turn"].source
    assert CALLS in source
    row = examine("one", source.replace(CALLS, ONE_CALL[two_calls]), weights)
    assert row.replay == ReasoningReplay("kept", "stripped", "stripped")
    assert (row.calls, row.two_calls, row.can_keep, row.kept) == ("shown", two_calls, False, None)
    assert cells_of(row)[3] == "one call in a message"


@pytest.mark.slow
def test_a_template_that_llama_cpp_cannot_read_is_in_the_table(weights: Path) -> None:
    row = examine("broken", "{% for %}", weights)
    assert row.error
    assert cells_of(row)[:1] == ["broken"]
    assert len(cells_of(row)) == len(COLUMNS) + 1
