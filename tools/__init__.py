"""Programs for maintainers: they write pages, diagrams and code, judge the tests, and check a release.

Each is run as `python -m tools.<name>`. Nothing here is part of the package.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
