"""Run the conformance suite on this package and its peers, and write `docs/llama-index-contract.md`.

`python -m tests.llama_index.peers.table` uses the environment of the benchmarks, which includes the peers. If the
environment does not exist, the command creates it, which downloads packages.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import environment
from tests.llama_index.peers.integrations import INTEGRATIONS

_ROOT = Path(__file__).parents[3]
_PAGE = _ROOT / "docs" / "llama-index-contract.md"
_HEAD = """# LlamaIndex integrations compared

LlamaIndex has no conformance suite for language models and embeddings, so this package has its own:
`tests/llama_index/contract.py`. Each row below is one check. The checks run on this package, against the emulator, and
on other LlamaIndex integrations for local models, against a server that speaks their HTTP protocols and runs the same
scripted models.

`llama-index-llms-openai-like` runs together with `llama-index-embeddings-openai`, and with the settings that give the
best results: `should_use_structured_outputs`, `is_function_calling_model`, and `stream_options` for token counts.
`llama-index-llms-ollama` runs together with `llama-index-embeddings-ollama`.

A dash means that the integration does not have the feature: no tools, or no embedding model. To regenerate this page,
run `python -m tests.llama_index.peers.table`.

"""

Results = dict[str, tuple[str, str]]


def results(python: Path, name: str) -> Results:
    """Run all checks on one integration."""
    command = [str(python), "-m", "tests.llama_index.peers.run", name]
    sys.stderr.write(f"{name}\n")
    run = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    found: Results = json.loads(run.stdout)
    return found


def page(found: dict[str, Results], versions: dict[str, str]) -> str:
    """Return the page in Markdown."""
    names = list(found)
    requirements = list(next(iter(found.values())))
    rows = [[requirement, *(found[name][requirement][0] for name in names)] for requirement in requirements]
    passed = [f"**{sum(each[0] == 'yes' for each in found[name].values())}**" for name in names]
    lines = [
        "| | " + " | ".join(f"`{name}` {versions[name]}" for name in names) + " |",
        "| --- |" + " --- |" * len(names),
        *("| " + " | ".join(row) + " |" for row in rows),
        f"| **passed, of {len(requirements)}** | " + " | ".join(passed) + " |",
    ]
    return _HEAD + "\n".join(lines) + "\n"


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of all integrations; this package is the working tree."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    ours, *peers = INTEGRATIONS
    run = subprocess.run([str(python), "-c", script, *peers], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return {ours: version(ours), **dict(zip(peers, run.stdout.split(), strict=True))}


def main() -> None:
    """Run all integrations and write the page."""
    python = environment.prepare()
    found = {name: results(python, name) for name in INTEGRATIONS}
    _PAGE.write_text(page(found, versions_of(python)), encoding="utf-8")


if __name__ == "__main__":
    main()
