"""Run the contract on this package and on its peers, and write who keeps what into the documentation.

`python -m tests.llama_index.peers.table` makes the environment of the benchmarks, which has the peers, if need be; it
downloads. The result is `docs/llama-index-contract.md`.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import environment
from tests.llama_index.peers.subjects import SUBJECTS

_ROOT = Path(__file__).parents[3]
_PAGE = _ROOT / "docs" / "llama-index-contract.md"
_HEAD = """# Who keeps LlamaIndex's contract

LlamaIndex has no conformance suite for language models and embeddings, so this package has one of its own
(`tests/llama_index/contract.py`). Every sentence below is a check. It runs on the classes of this package against the
emulator, and on the other integrations that people use with LM Studio or in its place, against a server that speaks
their HTTP protocols and plays the same scripted models. `llama-index-llms-openai-like` is run with
`llama-index-embeddings-openai`, and with what it needs to do its best: `should_use_structured_outputs`,
`is_function_calling_model`, and `stream_options` for token counts; `llama-index-llms-ollama` is run with
`llama-index-embeddings-ollama`.

A dash means that the integration has nothing of the kind: no tools, or no embedding model. This page is written by
`python -m tests.llama_index.peers.table`.

"""

Results = dict[str, tuple[str, str]]


def results(python: Path, name: str) -> Results:
    """Return what became of each check of one integration."""
    command = [str(python), "-m", "tests.llama_index.peers.run", name]
    sys.stderr.write(f"{name}\n")
    run = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    found: Results = json.loads(run.stdout)
    return found


def page(found: dict[str, Results], versions: dict[str, str]) -> str:
    """Return the page."""
    names = list(found)
    sentences = list(next(iter(found.values())))
    rows = [[sentence, *(found[name][sentence][0] for name in names)] for sentence in sentences]
    kept = [f"**{sum(each[0] == 'yes' for each in found[name].values())}**" for name in names]
    lines = [
        "| | " + " | ".join(f"`{name}` {versions[name]}" for name in names) + " |",
        "| --- |" + " --- |" * len(names),
        *("| " + " | ".join(row) + " |" for row in rows),
        f"| **kept, of {len(sentences)}** | " + " | ".join(kept) + " |",
    ]
    return _HEAD + "\n".join(lines) + "\n"


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of all integrations; this package's is that of the working tree."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    ours, *peers = SUBJECTS
    run = subprocess.run([str(python), "-c", script, *peers], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return {ours: version(ours), **dict(zip(peers, run.stdout.split(), strict=True))}


def main() -> None:
    """Write the page."""
    python = environment.prepare()
    found = {name: results(python, name) for name in SUBJECTS}
    _PAGE.write_text(page(found, versions_of(python)), encoding="utf-8")


if __name__ == "__main__":
    main()
