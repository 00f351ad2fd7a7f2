"""Plants: faults that somebody could make in the trunk, each a patch in `tests/plants/`, and what finds them.

Each patch begins with a sentence that says what is wrong with it, and a line that names what finds it. This plants each
one in a copy, runs the tests and the simulation there, and fails if something does not find a plant that it has found
before:

    python -m tools.mutants record
    python -m tools.plants [PLANT...] [--tier fast|simulation|slow] [--write]

Of the fast tests, only those that run lines of the changed file are tried. The simulation plays for a minute of the
processor. The slow tests take long, and are tried only for what nothing else finds. `--write` updates the lines that
name what finds a plant.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tools import ROOT
from tools.copies import copy_clone
from tools.mutants import DATA, HANGS, Covering, failure_of

FOLDER = ROOT / "tests/plants"
TIERS = ("fast", "simulation", "slow")
SECONDS_OF_SIMULATION = 60
_FOUND_BY, _NOTHING = "Found by: ", "nothing"
_HUNK = re.compile(r"^@@ -(\d+)", re.MULTILINE)


class Plant:
    """A patch, and what it says of itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.sentence, second, *_ = self.text.splitlines()
        self.found_by = [each for each in second.removeprefix(_FOUND_BY).split(", ") if each in TIERS]

    @property
    def file(self) -> str:
        """The file that it changes."""
        return self.text.partition("\n--- a/")[2].partition("\n")[0]

    def lines(self) -> list[int]:
        """Return the lines of the file that it removes, and those between which it adds some."""
        changed, number = list[int](), 0
        for line in self.text.partition("\n+++ ")[2].splitlines()[1:]:
            if hunk := _HUNK.match(line):
                number = int(hunk[1])
            elif line.startswith("+"):
                changed += [number - 1, number]
            else:
                changed += [number] if line.startswith("-") else []
                number += 1
        return changed

    def apply(self, folder: Path) -> None:
        """Change a copy."""
        subprocess.run(["git", "apply", "-C1", self.path], cwd=folder, check=True)

    def write(self, found_by: list[str]) -> None:
        """Say in the patch what finds it."""
        lines = [self.sentence, f"{_FOUND_BY}{', '.join(found_by) or _NOTHING}", *self.text.splitlines()[2:]]
        self.path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def find(plant: Plant, tiers: list[str], covering: Covering | None) -> list[str]:
    """Plant a fault in a copy; print what finds it, and return the tiers."""
    found_by = list[str]()
    with TemporaryDirectory() as name:
        folder = Path(name)
        copy_clone(folder)
        plant.apply(folder)
        for tier in tiers:
            if tier == "slow" and found_by:
                continue
            match tier:
                case "fast":
                    assert covering is not None, "it was read for this tier"
                    found = covering.failure(folder, plant.file, plant.lines())
                case "simulation":
                    play = ("-m", "tests.simulation", "--seconds", str(SECONDS_OF_SIMULATION))
                    found = failure_of(folder, *play, seconds=HANGS + 5 * SECONDS_OF_SIMULATION)
                case _:
                    pytest = ("-m", "pytest", "-x", "-q", "-n", "auto", "--dist", "loadfile", "-p", "no:cacheprovider")
                    which = "slow and not exhaustive and not live and not network and not ray"
                    found = failure_of(folder, *pytest, "-m", which, "tests/client", "tests/faults", "tests/_adapters")
            print(f"{plant.path.stem}: {tier}: {found or 'finds nothing'}", flush=True)
            found_by += [tier] if found else []
    return found_by


def main() -> None:
    """Plant the faults, and say what finds them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plants", nargs="*", metavar="PLANT")
    parser.add_argument("--tier", choices=TIERS, action="append")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tiers, lost = options.tier or [*TIERS], list[str]()
    covering = Covering(DATA) if "fast" in tiers else None
    plants = [Plant(path) for path in sorted(FOLDER.glob("*.patch")) if path.stem in (options.plants or [path.stem])]
    for plant in plants:
        found_by = find(plant, tiers, covering)
        others = [tier for tier in plant.found_by if tier not in tiers]
        if options.write:
            plant.write([tier for tier in TIERS if tier in (*found_by, *others)])
        if not {*plant.found_by} - {"slow"} <= {*found_by, *others} or not (found_by or others):
            lost.append(plant.path.stem)
    print(
        f"{len(plants) - len(lost)} of {len(plants)} plants are found by what they name; not: {', '.join(lost) or '-'}"
    )
    sys.exit(bool(lost) and not options.write)


if __name__ == "__main__":
    main()
