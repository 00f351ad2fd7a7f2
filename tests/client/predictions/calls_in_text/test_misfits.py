"""60 calls that do not fit, rebuilt after public threads, and what a person would have written in place of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import MeantTools, calls_in

FOLDER = Path(__file__).parent
MISFITS: list[dict[str, Any]] = json.loads((FOLDER / "misfits.json").read_text("utf-8"))
FITTING: list[dict[str, Any]] = json.loads((FOLDER / "fitting_calls.json").read_text("utf-8"))

FEWEST_MENDED = 49
"""How many of them are what the person wrote, without asking a model."""


def mend_case(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls that are made of a wrong one without a model; none if it has to be asked."""
    tools, call = MeantTools(case["tools"]), case["call"]
    if "raw" in call:
        read = [(tools.meant(each.tool.name), each.arguments) for each in calls_in(call["raw"], tools, call["name"])]
    else:
        read = [(tools.meant(call["name"]), call["arguments"])]
    made = [(tool, tool and mend(tool, arguments)) for tool, arguments in read]
    return [{"name": tool.name, "arguments": arguments} for tool, arguments in made if tool and arguments is not None]


@pytest.mark.parametrize("case", MISFITS, ids=lambda case: case["source"])
def test_a_mended_call_is_what_a_person_would_have_written(case: dict[str, Any]) -> None:
    assert mend_case(case) in ([case["meant"]], [])


def test_most_are_mended_without_a_model() -> None:
    assert sum(mend_case(case) == [case["meant"]] for case in MISFITS) >= FEWEST_MENDED


@pytest.mark.parametrize("case", [case for case in MISFITS if case["meant"] is None], ids=lambda case: case["source"])
def test_no_tool_is_called_that_was_not_meant(case: dict[str, Any]) -> None:
    tool = MeantTools(case["tools"]).meant(case["call"]["name"])
    assert tool is None or tool.name == case["call"]["name"]


@pytest.mark.parametrize("case", FITTING, ids=lambda case: case["why"])
def test_a_call_that_fits_is_not_changed(case: dict[str, Any]) -> None:
    tools, call = MeantTools(case["tools"]), case["call"]
    tool = tools.meant(call["name"])
    assert tool is not None
    assert (tool.name, tool.problem(call["arguments"])) == (call["name"], None)
    assert mend(tool, call["arguments"]) == call["arguments"]
