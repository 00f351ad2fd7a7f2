"""Count the work of calls and tokens, and print it as the budgets are written.

`python -m tests.budgets [--write]`; with `--write`, `budgets.toml` is written again.
"""

import argparse

from tests.budgets.measures import count_all
from tests.budgets.table import BUDGETS, render


def main() -> None:
    """Count, and print or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.budgets", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the counts as the new budgets")
    text = render(count_all())
    if parser.parse_args().write:
        BUDGETS.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
