"""Writes the schema of cards, and the card of the bundled model: `python -m tools.bundled_card [--measure]`.

With `--measure`, the model is certified anew, which takes several minutes; without, the card that was kept is shown.
"""

import json
import re
import subprocess
import sys

from lmstudio_integrations import Card
from lmstudio_integrations.emulator import Emulator
from tools import ROOT

MODEL = "smollm2-135m-instruct"
SCHEMA = ROOT / "docs/reference/types/card.schema.json"
CARD = ROOT / f"docs/guides/{MODEL}.card.json"
PAGE = ROOT / "docs/guides/certify.md"

_SHOWN = re.compile(r"(<!-- card -->\n\n```text\n)[^`]*")


def schema_text() -> str:
    """Return the JSON schema of a card."""
    return f"{json.dumps(Card.model_json_schema(), indent=1)}\n"


def page_text() -> str:
    """Return the page with the card that was kept."""
    return _SHOWN.sub(lambda match: f"{match[1]}{Card.read(CARD)}\n", PAGE.read_text(encoding="utf-8"))


def main() -> None:
    """Write the files."""
    if "--measure" in sys.argv[1:]:
        with Emulator() as server:
            command = ["lmsi", "certify", MODEL, "--to", str(CARD), "--host", server.address]
            subprocess.run(command, check=True)
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
