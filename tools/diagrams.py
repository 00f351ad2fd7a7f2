"""Draws the diagrams of the documentation: `docs/diagrams/*.mmd`, each as an SVG beside it.

`python -m tools.diagrams` needs npm and a Chromium; without `PUPPETEER_EXECUTABLE_PATH` it takes the one on the
path. Each SVG ends with the hash of its source, by which a test notices a diagram that was not drawn again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import ROOT

DIAGRAMS = ROOT / "docs/diagrams"
MERMAID = "@mermaid-js/mermaid-cli@11.17.0"

# Browsers show labels in HTML only where an SVG is a page of its own, not where it is an image in one.
CONFIG = {"htmlLabels": False, "flowchart": {"htmlLabels": False}}
BROWSER = {"args": ["--no-sandbox"]}


def sources() -> list[Path]:
    """Return the sources of all diagrams."""
    return sorted(DIAGRAMS.glob("*.mmd"))


def hash_line(source: Path) -> str:
    """Return the last line of the SVG that belongs to a source as it is now."""
    digest = hashlib.sha256(source.read_text(encoding="utf-8").encode()).hexdigest()
    return f"<!-- {source.name}: {digest} -->\n"


def draw(source: Path, browser: str) -> None:
    """Draw one diagram."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn.svg")
        arguments = ["-i", str(source), "-o", str(drawn), "-b", "white"]
        for flag, content in (("-c", CONFIG), ("-p", BROWSER)):
            file = Path(folder, f"{flag}.json")
            file.write_text(json.dumps(content), encoding="utf-8")
            arguments += [flag, str(file)]
        environment = {**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1", "PUPPETEER_EXECUTABLE_PATH": browser}
        subprocess.run(["npx", "--yes", "--package", MERMAID, "mmdc", *arguments], check=True, env=environment)
        svg = drawn.read_text(encoding="utf-8").rstrip()
    source.with_suffix(".svg").write_text(f"{svg}\n{hash_line(source)}", encoding="utf-8")


def main() -> None:
    """Draw all diagrams."""
    browser = os.environ.get("PUPPETEER_EXECUTABLE_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is on the path; set PUPPETEER_EXECUTABLE_PATH")
    for source in sources():
        draw(source, browser)


if __name__ == "__main__":
    main()
