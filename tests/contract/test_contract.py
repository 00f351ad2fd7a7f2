"""This package passes the checks of the conformance suites that `docs/guides/comparison.md` says it passes."""

import pytest

from tests.contract.frameworks import FRAMEWORKS, OURS, documented
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
TABLES = documented()


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_the_page_lists_the_checks_of_the_suite(key: str) -> None:
    framework = FRAMEWORKS[key]
    assert sorted(TABLES[framework.title]) == sorted(framework.suite.checks)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "requirement"), CHECKS)
def test_the_page_states_the_result_of_this_package(key: str, requirement: str) -> None:
    result, reason = FRAMEWORKS[key].outcome(OURS, requirement)
    if result == MISSING:
        pytest.skip(reason)
    assert result == TABLES[FRAMEWORKS[key].title][requirement][0], reason
