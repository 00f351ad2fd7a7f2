"""The budgets, and what is wrong with a count. Pure."""

import tomllib
from pathlib import Path
from typing import TypeAlias

Counts: TypeAlias = dict[str, dict[str, float]]
"""What was counted, or may be, by measure and case."""

BUDGETS = Path(__file__).with_name("budgets.toml")
PYTHON = (3, 11)
"""The version of Python that is counted: others inline comprehensions, or call finalizers otherwise."""

TOLERANCE = 1.15
"""How many times the budget a count may be."""

_HEAD = """\
# What one response, one token of a stream, one embedding and one import may cost, counted with Python 3.11 and without
# a thread or a socket: see `measures.py`. A count may be up to 1.15 times its budget. What costs less gets a lower
# budget: `python -m tests.budgets --write`. A higher budget needs a reason in its commit.
"""


def render(counts: Counts) -> str:
    """Return counts as TOML."""
    tables = (
        "\n".join([f"[{measure}]", *(f"{case} = {value:g}" for case, value in values.items())])
        for measure, values in counts.items()
    )
    return "\n".join([_HEAD, *(f"{table}\n" for table in tables)])


def load() -> Counts:
    """Return the budgets."""
    return tomllib.loads(BUDGETS.read_text(encoding="utf-8"))


def problem(name: str, count: float, budget: float) -> str | None:
    """Return what is wrong with a count; `None` if nothing is."""
    if count > budget * TOLERANCE:
        return f"{name}: {count:g} is more than {TOLERANCE} times the budget of {budget:g}; find what costs more"
    if count * TOLERANCE < budget:
        return f"{name}: {count:g} is far below the budget of {budget:g}; run python -m tests.budgets --write"
    return None
