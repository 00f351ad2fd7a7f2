"""This package passes the checks of the conformance suites that it is recorded to pass; the pages have the records."""

import pytest

from tests.contract.comparison.pages import render
from tests.contract.frameworks import FRAMEWORKS, OURS, recorded
from tests.contract.suite import MISSING

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step",
    "ignore::langchain_core._api.LangChainBetaWarning",
)

COSTLY = {"a used object works in a forked process and, afterwards, in its parent"}
"""What starts a process that imports a framework."""

CHECKS = [
    pytest.param(key, requirement, marks=[pytest.mark.exhaustive] * (requirement in COSTLY))
    for key, framework in FRAMEWORKS.items()
    for requirement in framework.suite.checks
]
RECORDED = recorded()


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_each_check_of_the_suite_has_a_result_for_each_integration(key: str) -> None:
    assert sorted(RECORDED[key]) == sorted(FRAMEWORKS[key].suite.checks)
    assert {len(marks) for marks in RECORDED[key].values()} == {len(FRAMEWORKS[key].integrations)}


def test_the_pages_are_made_of_the_results() -> None:
    for path, page in render().items():
        assert path.read_text(encoding="utf-8") == page, "run python -m tests.contract.comparison.pages"


@pytest.mark.slow
@pytest.mark.parametrize(("key", "requirement"), CHECKS)
def test_the_result_of_this_package_is_the_recorded_one(key: str, requirement: str) -> None:
    result, reason = FRAMEWORKS[key].outcome(OURS, requirement)
    if result == MISSING:
        pytest.skip(reason)
    assert result == RECORDED[key][requirement][0], reason
