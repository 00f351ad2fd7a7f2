"""The outputs on the pages: `python -m tools.outputs [PAGE...]` runs their examples and writes what they print.

A block `text` right below a block `python` is the output of that example. A page ends with a comment that has the
digest of its examples and outputs, so that `test_outputs.py` notices a page that was changed and not run again.
Without arguments, all pages with such a comment are run. A line below its title names the server: `lmsi serve`, or, for
examples that name models of the recipes, the same with their catalog.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from tools import ROOT

CATALOG = ROOT / "cookbook/catalog.toml"
EXPLAINED = ROOT / "docs/tools/emulator.md"
CHAT = next(key for key, kind in BUNDLED.items() if kind == "llm")
"""The model that is loaded at the start, for examples that name none."""

IMAGES = ROOT / "docs/images"
TIMEOUT = 900
"""Seconds for one page."""

WARNINGS = ("-W", "error", "-W", "ignore::DeprecationWarning")
"""Python shows no deprecation inside of libraries; LlamaIndex's agents use deprecated attributes of pydantic."""

EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
DIGEST = re.compile(r"\n<!-- outputs: (\w*)[^>]*-->\n")
COMMENT = "\n<!-- outputs: {digest}, written by python -m tools.outputs -->\n"
TITLE = re.compile(r"^(# .*\n)(?:\n\*\[The programs here\].*\n)?", re.MULTILINE)
SERVER = "\n*[The programs here]({link}) run with `{command}`.*\n"

NORMALIZED = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "…"),
    (re.compile(r"('id': ')\d+(?=')"), r"\1…"),
    (re.compile(r"((?:_ms|(?:_s|S)ec(?:onds?)?)'?[:=] ?)[\d.e-]+"), r"\1…"),
    (re.compile(r"\b(127\.0\.0\.1:)\d+"), r"\1…"),
)
"""What differs from run to run, and what a page shows instead: identifiers, timings and ports."""


def examples(page: str) -> list[str]:
    """Return the examples of a page."""
    return [code for code, _ in EXAMPLE.findall(page)]


def digest(page: str) -> str:
    """Return the digest of the examples of a page and of their outputs."""
    return hashlib.sha256(json.dumps(EXAMPLE.findall(page)).encode()).hexdigest()[:16]


def is_current(page: str) -> bool:
    """Whether the outputs of a page are those that the command wrote for these examples."""
    return DIGEST.findall(page) == [digest(page)]


def normalize(output: str) -> str:
    """Return an output without what differs from run to run."""
    for pattern, replacement in NORMALIZED:
        output = pattern.sub(replacement, output)
    return "".join(f"{line.rstrip()}\n" for line in output.strip("\n").splitlines())


def catalog_of(page: str) -> Path | None:
    """Return the catalog that a page needs; `None` if its examples name no models but those of `lmsi serve`."""
    from lmstudio_integrations.cli._serve import build_catalog

    catalogs = build_catalog(path=CATALOG), build_catalog(scripted=True)
    of_recipes, of_serve = ({model.key for model in catalog.models} for catalog in catalogs)
    return CATALOG if any(key in code for code in examples(page) for key in of_recipes - of_serve) else None


def with_outputs(page: str, outputs: Sequence[str], link: str = "emulator.md#pages") -> str:
    """Return a page with the output of each example, the server that they ran on, and a digest.

    The link leads to what says more of that server.
    """
    remaining = iter(outputs)

    def block(match: re.Match[str]) -> str:
        output = normalize(next(remaining))
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{output}```\n" if output else "")

    page = EXAMPLE.sub(block, DIGEST.sub("", page))
    catalog = catalog_of(page)
    options = f" --catalog {catalog.relative_to(ROOT).as_posix()}" if catalog else ""
    server = SERVER.format(link=link, command=f"lmsi serve{options} --load {CHAT}")
    page = TITLE.sub(lambda title: title[1] + server, page, count=1)
    return page + COMMENT.format(digest=digest(page))


def environment(host: str) -> dict[str, str]:
    """Return the environment of a program that uses a server without a token."""
    return {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES} | {HOST_VARIABLE: host}


def run(cells: Sequence[str], host: str, *arguments: str) -> list[str]:
    """Run programs on a server, in a folder with the images of the pages; return what each of them prints.

    The arguments are those of `cells.py`.

    Raises:
        SystemExit: If one of them fails, or warns.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(IMAGES, folder, dirs_exist_ok=True)
        return run_in(Path(folder), cells, host, *arguments)


def run_in(folder: Path, cells: Sequence[str], host: str, *arguments: str) -> list[str]:
    """Do the same in another folder.

    Raises:
        SystemExit: If one of them fails, or warns.
    """
    done = subprocess.run(
        [sys.executable, *WARNINGS, str(Path(__file__).with_name("cells.py")), *arguments],
        input=json.dumps(cells),
        cwd=folder,
        env=environment(host),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode or done.stderr:
        raise SystemExit(done.stderr)
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def pages_with_outputs() -> list[Path]:
    """Return the pages whose outputs are kept."""
    paths = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return [path for path in paths if DIGEST.search(path.read_text(encoding="utf-8"))]


def write(paths: Iterable[Path]) -> None:
    """Run the examples of pages, each on a server of its own, and write their outputs."""
    from lmstudio_integrations.cli._serve import build_catalog

    for path in paths:
        page = path.read_text(encoding="utf-8")
        with Emulator(catalog=build_catalog(path=catalog_of(page))) as server:
            server.load(CHAT)
            outputs = run(examples(page), server.address)
        link = f"{os.path.relpath(EXPLAINED, path.resolve().parent)}#pages"
        path.write_text(with_outputs(page, outputs, link), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the examples of pages and write their outputs.")
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    write(parser.parse_args().pages or pages_with_outputs())
