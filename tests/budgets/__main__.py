"""Count the work of calls and tokens: `python -m tests.budgets [--write]`; `--write` writes `budgets.json`."""

import json
import sys

from tests.budgets.measures import BUDGETS, count_all

text = json.dumps(count_all(), indent=1) + "\n"
if sys.argv[1:] == ["--write"]:
    BUDGETS.write_text(text, encoding="utf-8")
else:
    print(text, end="")
