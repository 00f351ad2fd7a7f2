"""Run the conformance suites on this package and on those of others, keep the results, and write the pages about them.

`python -m tests.contract.comparison` uses the environment of the benchmarks, which includes the packages of others. If
the environment does not exist, the command creates it, which downloads packages. `pages.py` makes the pages of the
results.

`python -m tests.contract.comparison FRAMEWORK NAME [PART...]` runs the checks of one integration in this environment,
and prints their results as JSON; with PART, only those whose requirements contain one of them.
"""

import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

from benchmarks import environment
from tests.contract.comparison import pages
from tests.contract.frameworks import FRAMEWORKS, OURS, RESULTS, Framework
from tools import ROOT

Results = dict[str, tuple[str, str]]
"""Result and reason of each check."""


def results(python: Path, framework: Framework, name: str) -> Results:
    """Run all checks on one integration."""
    command = [str(python), "-m", "tests.contract.comparison", framework.key, name]
    sys.stderr.write(f"{name}\n")
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    outcomes: Results = json.loads(run.stdout)
    return outcomes


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of all integrations and of their frameworks; this package is the working tree."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    names = [name for each in FRAMEWORKS.values() for name in (each.core, *each.integrations)]
    run = subprocess.run(
        [str(python), "-c", script, *names], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return {**dict(zip(names, run.stdout.split(), strict=True)), OURS: version(OURS)}


def run(framework: Framework, name: str, *parts: str) -> None:
    """Run the checks of one integration and print the results."""
    warnings.simplefilter("ignore")
    outcomes: Results = {}
    for requirement in framework.suite.checks:
        if not parts or any(part in requirement for part in parts):
            outcomes[requirement] = framework.outcome(name, requirement)
            sys.stderr.write(f"{outcomes[requirement][0]} {requirement}  {outcomes[requirement][1]}\n")
    json.dump(outcomes, sys.stdout)


def write() -> None:
    """Run all integrations, keep the results, and write the pages."""
    python = environment.prepare()
    kept: dict[str, dict[str, str]] = {}
    for key, framework in FRAMEWORKS.items():
        outcomes = [results(python, framework, name) for name in framework.integrations]
        kept[key] = {each: " ".join(outcome[each][0] for outcome in outcomes) for each in framework.suite.checks}
    text = json.dumps({"versions": versions_of(python), "results": kept}, indent=2, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    pages.main()


if __name__ == "__main__":
    if sys.argv[1:]:
        key, *arguments = sys.argv[1:]
        run(FRAMEWORKS[key], *arguments)
    else:
        write()
