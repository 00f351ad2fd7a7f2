"""Run the contract on one integration: `python -m tests.llama_index.peers.run NAME` prints what became of it."""

import json
import sys
import warnings
from typing import Any

from tests.llama_index import contract
from tests.llama_index.peers.subjects import SUBJECTS

PASSED, FAILED, MISSING = "yes", "no", "-"


def outcome(name: str, check: contract.Check) -> tuple[str, str]:
    """Return what became of a check, and why; each has a server of its own."""
    subject: Any
    with SUBJECTS[name]() as subject:
        try:
            contract.run(check, subject)
        except contract.UnsupportedError as error:
            return MISSING, str(error)
        except BaseException as error:  # noqa: BLE001 - peers raise all kinds
            return FAILED, f"{type(error).__name__}: {error}"[:200]
    return PASSED, ""


def main() -> None:
    """Run all checks."""
    warnings.simplefilter("ignore")
    results: dict[str, tuple[str, str]] = {}
    for sentence, check in contract.CHECKS.items():
        results[sentence] = outcome(sys.argv[1], check)
        sys.stderr.write(f"{results[sentence][0]:4} {sentence}  {results[sentence][1]}\n")
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
