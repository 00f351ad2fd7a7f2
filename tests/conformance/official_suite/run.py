"""Run the official Python SDK's own test suite against the emulator, unchanged.

The suite ships in the source distribution of the SDK. It looks for a server on the discovery ports, so the
emulator must have the first of them, and nothing else may listen on any: nobody's own LM Studio is to be touched.
"""

import argparse
import contextlib
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

from lmstudio_integrations.emulator import Emulator

PORTS = (41343, 52993, 16141, 39414, 22931)
CATALOG = Path(__file__).parent / "catalog.toml"
CASES = 199
"""How many cases the suite of this release has; fewer would mean that some did not run."""


LATENCY = 0.02
"""Seconds for each request. Two cases allow no time at all for a reply; an immediate one can be in time."""


def main() -> int:
    """Run the suite; return the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", type=Path, required=True, help="the source distribution of the SDK")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter that has the SDK and pytest")
    parser.add_argument("--into", type=Path, required=True, help="an empty folder to unpack into")
    arguments = parser.parse_args()
    taken = [port for port in PORTS if listens(port)]
    if taken:
        print(f"Something listens on port {taken[0]}. Stop it first: the suite would load and unload its models.")
        return 2
    with tarfile.open(arguments.sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later have it
        archive.extractall(arguments.into)
    (folder,) = arguments.into.iterdir()
    with Emulator(catalog=CATALOG, port=PORTS[0], latency=LATENCY):
        return run_suite(arguments.python.absolute(), folder)


def listens(port: int) -> bool:
    """Return whether anything on this machine accepts connections on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def run_suite(python: Path, folder: Path) -> int:
    """Run the suite's tests that need a server; return 0 if all of them passed."""
    command = [str(python), "-m", "pytest", "-q", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider"]
    chosen = ["-m", "lmstudio", "tests", "--ignore", "tests/test_plugin_examples.py"]
    result = subprocess.run([*command, *chosen], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    print(result.stdout)
    passed = re.search(r"(\d+) passed", result.stdout)
    if passed is None or int(passed[1]) != CASES:
        print(f"Expected {CASES} cases to pass.")
        return result.returncode or 1
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
