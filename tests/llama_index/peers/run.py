"""Run the conformance suite on one integration: `python -m tests.llama_index.peers.run NAME` prints the results."""

import json
import sys
import warnings
from typing import Any

from tests.llama_index import contract
from tests.llama_index.peers.integrations import INTEGRATIONS

PASSED, FAILED, MISSING = "yes", "no", "-"


def outcome(name: str, check: contract.Check) -> tuple[str, str]:
    """Run one check on its own server; return the result and the reason."""
    integration: Any
    with INTEGRATIONS[name]() as integration:
        try:
            contract.run(check, integration)
        except contract.UnsupportedError as error:
            return MISSING, str(error)
        except BaseException as error:  # noqa: BLE001 - peers raise all kinds
            return FAILED, f"{type(error).__name__}: {error}"[:200]
    return PASSED, ""


def main() -> None:
    """Run all checks and print the results as JSON."""
    warnings.simplefilter("ignore")
    results: dict[str, tuple[str, str]] = {}
    for requirement, check in contract.CHECKS.items():
        results[requirement] = outcome(sys.argv[1], check)
        sys.stderr.write(f"{results[requirement][0]:4} {requirement}  {results[requirement][1]}\n")
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
