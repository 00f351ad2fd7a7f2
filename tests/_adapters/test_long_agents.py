"""Agents in a window of 4,096 tokens, and with a model that makes every mistake.

Nothing is lost, no tool runs wrongly, and where something went wrong, somebody says so. `python -m tools.long_agent`
and `python -m tools.fifty_turns` run more turns, with more seeds.
"""

import asyncio

import pytest

from tools import fifty_turns
from tools.fifty_turns import WAYS, Way
from tools.long_agent import Framework, run, run_real

# LlamaIndex's agents look at all their attributes.
of_agents = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "seed"), [("LangChain", 0), ("LlamaIndex", 0), ("LlamaIndex", 3)])
def test_an_agent_finds_the_sum_although_its_model_forgets_and_ends_early(framework: Framework, seed: int) -> None:
    """Seed 3 has a `ChatMemoryBuffer`, and seed 0 a `Memory`. Half of the window is full after 30 turns."""
    report = asyncio.run(run(framework, seed, turns=40))
    assert report.is_right, report
    assert report.calls >= 40
    assert report.runs > 1, "nothing went wrong"


@pytest.mark.slow
def test_an_agent_that_is_not_summarized_hears_of_each_prompt_that_does_not_fit() -> None:
    report = asyncio.run(run("LangChain", 6, turns=80, shortened=False))
    assert report.overflowed, report
    assert report.noticed == report.truncated > 0, report
    assert not report.is_right


@pytest.mark.slow
def test_an_agent_that_sends_no_thoughts_is_noticed() -> None:
    report = asyncio.run(run("LangChain", 0, turns=10, send_reasoning=False))
    assert report.thoughtless >= 9
    assert report.answer == report.right


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
@pytest.mark.parametrize("framework", ["LangChain", "LlamaIndex"])
def test_a_long_agent_on_a_real_model_meets_no_error(framework: Framework) -> None:
    report = asyncio.run(run_real(framework, turns=6, window=1024))
    assert (report.calls, report.noticed) == (6, 0), report


FEW = 12
"""Turns in which most mistakes are made."""


@of_agents
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_an_agent_goes_on_although_its_model_makes_every_mistake(way: Way) -> None:
    report = asyncio.run(fifty_turns.run(way, 1, FEW))
    assert not report.failures, report
    assert report.counts["turns"] == FEW
    assert report.counts["mended without one"], report


@pytest.mark.slow
def test_mistakes_of_which_nobody_takes_care_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fifty_turns, "COPIES", 40)
    report = asyncio.run(fifty_turns.run("act", 2, FEW, repair_tool_calls=False, stop_on_repetition=False))
    assert report.failures
    assert report.counts["repetitions that went on"], report
    assert not report.counts["mended by a request"], report


@of_agents
@pytest.mark.filterwarnings("ignore:.*not trained for tool use")
@pytest.mark.exhaustive
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_each_response_of_a_real_model_says_why_it_ended(way: Way) -> None:
    report = asyncio.run(fifty_turns.run_real(way, turns=3))
    assert not report.failures, report
    assert report.counts["turns"] == 3
