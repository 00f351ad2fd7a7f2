"""Writes `docs/internals/evidence.md`: `python -m tools.evidence`. It takes half a minute."""

import logging

from tools.evidence.page import PAGE, render_page

logging.disable(logging.WARNING)  # each call that is read is logged
PAGE.write_text(render_page(), encoding="utf-8")
