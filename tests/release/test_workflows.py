"""The files of `.github`: linters accept them, what they name exists, and only the last job of a release publishes."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*")
}

SCHEMAS = {
    "vendor.github-workflows": "workflows/*",
    "custom.github-workflows-require-timeout": "workflows/*",
    "vendor.dependabot": "dependabot.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
}
"""The schemas of check-jsonschema, each with its files."""

LINTERS = [
    ["zizmor", "--offline", "--quiet", ".github"],
    *(
        ["check-jsonschema", "--builtin-schema", schema, *map(str, (ROOT / ".github").glob(files))]
        for schema, files in SCHEMAS.items()
    ),
]


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job.get("steps", [])]


def commands(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def missing(command: str) -> Iterator[str]:
    """Yield the groups, extras, modules and files that a command names and that do not exist."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = settings["dependency-groups"].keys() | settings["project"]["optional-dependencies"].keys()
    yield from (name for name in re.findall(r"--(?:extra|(?:only-)?group)[ =]([\w-]+)", command) if name not in known)
    for module in re.findall(r"-m ((?:tests|tools)[\w.]*)", command):
        if not any(ROOT.joinpath(*module.split(".")).with_suffix(suffix).exists() for suffix in (".py", "")):
            yield module
    folders = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and path.name != "dist")
    paths = re.findall(rf"(?<![\w./$])(?:\./)?((?:{folders})/[\w./-]+)", command)
    yield from (path for path in paths if not (ROOT / path).exists())


@pytest.mark.slow
@pytest.mark.parametrize("command", LINTERS, ids=lambda command: " ".join(command[:3]))
def test_linters_find_nothing(command: list[str]) -> None:
    program = shutil.which(command[0], path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("needs the linters: uv sync --inexact --group lint")
    run = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_commands_and_jobs_name_exists(name: str) -> None:
    assert not [each for command in commands(name) for each in missing(command)]
    jobs = WORKFLOWS[name]["jobs"]
    assert not [job["uses"] for job in jobs.values() if "uses" in job and not (ROOT / job["uses"][2:]).exists()]
    for job in jobs.values():
        assert jobs.keys() >= set(job.get("needs", []))
        assert job.get("strategy", {}).get("matrix", {}).keys() >= set(re.findall(r"matrix\.(\w+)", str(job)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_scripts_that_are_commands_can_be_executed() -> None:
    programs = {command.split()[0] for name in WORKFLOWS for command in commands(name)}
    scripts = {program for program in programs if (ROOT / program).exists()}
    assert ".ci/run" in scripts
    assert not [script for script in scripts if not (ROOT / script).stat().st_mode & 0o100]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_only_the_publishing_job_may_write_and_it_runs_no_command(name: str) -> None:
    jobs = WORKFLOWS[name]["jobs"]
    writes = {
        key: {scope for scope, access in job["permissions"].items() if access != "read"} for key, job in jobs.items()
    }
    allowed = {"release.yml": {"id-token"}, "site.yml": {"pages", "id-token"}}.get(name, set())
    assert all(scopes == (allowed if key == "publish" else set()) for key, scopes in writes.items()), writes
    assert not allowed or not [step for step in jobs["publish"]["steps"] if "run" in step]


def test_the_workflows_of_a_release_do_not_cancel_each_other() -> None:
    """All of them have the context of the release, so their groups must differ in what they say themselves."""
    groups = [workflow["concurrency"]["group"] for workflow in WORKFLOWS.values() if "concurrency" in workflow]
    assert len({group.partition("$")[0] for group in groups}) == len(groups)


def test_a_release_starts_with_a_tag_and_publishes_after_everything_else() -> None:
    workflow = WORKFLOWS["release.yml"]
    assert workflow[True] == {"push": {"tags": ["v*"]}}, "YAML reads the key `on` as true"
    jobs = workflow["jobs"]
    called = {job["uses"].rpartition("/")[2] for job in jobs.values() if "uses" in job}
    assert called == {"ci.yml", "exhaustive.yml"}
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert jobs["publish"]["environment"] == "pypi"
    all_jobs = [job for name in ("release.yml", *called) for job in WORKFLOWS[name]["jobs"].values()]
    assert not [job for job in all_jobs if "if" in job or job.get("continue-on-error")]


def test_what_is_published_is_what_was_checked() -> None:
    """The publishing job runs no command; it downloads what the checks uploaded."""
    (upload,) = (step for step in steps("exhaustive.yml") if "upload-artifact@" in step.get("uses", ""))
    download, publish = WORKFLOWS["release.yml"]["jobs"]["publish"]["steps"]
    assert "download-artifact@" in download["uses"]
    assert download["with"] == {key: upload["with"][key] for key in ("name", "path")}
    assert publish["with"] == {"attestations": True}
    package = WORKFLOWS["exhaustive.yml"]["jobs"]["package"]["steps"]
    (rehearsal,) = (number for number, step in enumerate(package) if step.get("run", "").endswith(" tests/release"))
    assert package.index(upload) > rehearsal
