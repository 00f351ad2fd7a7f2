"""Run a conformance suite on one integration: `python -m tests.contract.run FRAMEWORK NAME` prints the results.

With further arguments, only the checks whose requirements contain one of them run.
"""

import json
import sys
import warnings
from typing import Any

from tests.contract.frameworks import FRAMEWORKS, Framework
from tests.contract.suite import Suite, UnsupportedError

PASSED, FAILED, MISSING = "✔", "✗", "-"


def outcome(framework: Framework, name: str, requirement: str) -> tuple[str, str]:
    """Run one check on its own server; return the result and the reason."""
    with framework.integrations[name]() as integration:
        return run_check(framework.suite, requirement, integration)


def run_check(suite: Suite[Any], requirement: str, integration: Any) -> tuple[str, str]:
    """Run one check; return the result and the reason."""
    try:
        suite.run(requirement, integration)
    except UnsupportedError as error:
        return MISSING, str(error)
    except BaseException as error:  # noqa: BLE001 - peers raise all kinds
        return FAILED, f"{type(error).__name__}: {error}"[:200]
    return PASSED, ""


def main() -> None:
    """Run the checks and print the results as JSON."""
    warnings.simplefilter("ignore")
    key, name, *parts = sys.argv[1:]
    framework = FRAMEWORKS[key]
    results: dict[str, tuple[str, str]] = {}
    for requirement in framework.suite.checks:
        if not parts or any(part in requirement for part in parts):
            results[requirement] = outcome(framework, name, requirement)
            sys.stderr.write(f"{results[requirement][0]} {requirement}  {results[requirement][1]}\n")
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
