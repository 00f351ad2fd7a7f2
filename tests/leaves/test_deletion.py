"""Each leaf can be deleted without another edit: the rest works, and whoever uses it gets one sentence."""

import re
from pathlib import Path

import pytest

from tools import ROOT
from tools.copies import copy_clone, run_in
from tools.leaves import find_tests, leaves, modules_of

OF_THE_TRUNK = {
    "fast": (
        *("_adapters", "client", "emulator", "faults", "langchain", "llama_index", "protocol", "real", "simulation"),
        "types",
    ),
    "slow": ("client/transport", "faults", "simulation"),
}
"""The folders of tests that say what the trunk does, fast ones and slow ones. The others are about the whole, or about
what is beside it.
"""

PROTECT = {
    "tests/client/api/test_timeouts.py",
    "tests/client/transport/test_connections.py",
    "tests/client/transport/test_keepalive.py",
    "tests/client/transport/test_sockets.py",
    "tests/faults/test_faults.py",
    "tests/simulation/test_simulation.py",
}
"""Some tests that no leaf may take with it."""

FAILS: dict[str, str] = {
    "decisions": "lms.Client().llm.lazy_model('m').rerank('q', ['t'])",
    "hosts": "ChatLMStudio(model='m', host=['127.0.0.1:1', '127.0.0.1:2']).invoke('Hello')",
    "concurrent_flows": "ChatLMStudio(model='m', host=['127.0.0.1:1', '127.0.0.1:2']).invoke('Hello')",
    "planning": "lms.Client().plan(['m'])",
    "hardware": "lms.Client().hardware()",
    "downloads": "lms.Client().repository",
    "devices": "Emulator(catalog={'memory_gib': 8})",
    "documents": "lms.Client().files.retrieve('q', [])",
    "plugins": "lms.Client().plugins",
    "tool_contents": "lms.ToolContent",
    "tool_loop": "lms.Client().llm.lazy_model('m').act('q', [])",
    "confidence": "lms.FieldConfidence",
    "reasoning_replay": "lms.Client().llm.lazy_model('m').get_reasoning_replay()",
    "registration": "register()",
    "gevent": "from gevent import monkey\nmonkey.patch_all()\nlms.Client('127.0.0.1:1').list_loaded_models()",
    "llama_cpp": "Emulator()",
}
"""What cannot be done without a leaf."""


def copy_without(names: list[str], folder: Path) -> Path:
    """Copy the clone without some leaves of the package."""
    copy_clone(folder)
    for leaf in names:
        for module in modules_of(leaf):
            path = folder / module.relative_to(ROOT)
            path.unlink()
            if not any(path.parent.iterdir()):  # else it would still be a package, without anything
                path.parent.rmdir()
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("leaf", leaves())
def test_without_a_leaf_the_rest_works(leaf: str, tmp_path: Path) -> None:
    folder = copy_without([leaf], tmp_path)
    done = run_in(folder, "-m", "tests.leaves.programs")
    assert done.returncode == 0, done.stderr
    if leaf in FAILS:
        program = "import lmstudio_integrations as lms; from lmstudio_integrations.langchain import *"
        program += f"; from lmstudio_integrations.emulator import *\n{FAILS[leaf]}"
        failed = run_in(folder, "-c", program)
        assert "MissingLeafError: This copy of " in failed.stderr.splitlines()[-1], failed.stderr


@pytest.mark.exhaustive
def test_without_any_leaf_the_trunk_passes_its_tests(tmp_path: Path) -> None:
    folder = copy_without(list(leaves()), tmp_path)
    for path in find_tests(*leaves()):
        (folder / path.relative_to(ROOT)).unlink()
    passed = set[str]()
    for marker, names in OF_THE_TRUNK.items():
        which = ("-m", f"{marker} and not leaf and not exhaustive", *(f"tests/{name}" for name in names))
        done = run_in(folder, "-m", "pytest", "-v", "-n", "auto", "--dist", "loadfile", *which)
        assert done.returncode == 0, done.stdout[-20_000:]
        passed |= set(re.findall(r"PASSED (tests/\S+?\.py)::", done.stdout))
    assert passed >= PROTECT
