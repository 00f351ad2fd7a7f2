"""Writes `docs/internals/evidence.md`: `python -m tools.evidence`; it takes half a minute.

`--names` prints the names of the observations that the page counts.
"""

import argparse
import logging

from tools.evidence.page import PAGE, names_of_all, render_page

parser = argparse.ArgumentParser(prog="python -m tools.evidence")
parser.add_argument("--names", action="store_true", help="print the observations of each rule, and write nothing")
logging.disable(logging.WARNING)  # each call that is read is logged
if parser.parse_args().names:
    for line in names_of_all():
        print(line)
else:
    PAGE.write_text(render_page(), encoding="utf-8")
