"""The workflows: what they refer to exists, and only the last job of a release may publish."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.glob("*"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")

Workflow = dict[Any, Any]


def read(name: str) -> Workflow:
    loaded: Workflow = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


def steps(workflow: Workflow) -> Iterator[dict[str, Any]]:
    return (step for job in workflow["jobs"].values() for step in job.get("steps", []))


def used(workflow: Workflow) -> Iterator[str]:
    """Yield each action and each workflow that a workflow uses."""
    yield from (part["uses"] for part in [*workflow["jobs"].values(), *steps(workflow)] if "uses" in part)


def missing(command: str) -> Iterator[str]:
    """Yield the groups, modules and files that a command names and that do not exist."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    yield from (name for name in re.findall(r"--(?:only-)?group[ =]([\w-]+)", command) if name not in groups)
    for module in re.findall(r"-m ((?:tests|tools|benchmarks)[\w.]*)", command):
        if not any(ROOT.joinpath(*module.split(".")).with_suffix(suffix).exists() for suffix in (".py", "")):
            yield module
    folders = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and path.name != "dist")
    paths = re.findall(rf"(?<![\w./$])(?:\./)?((?:{folders})/[\w./-]+)", command)
    yield from (path for path in paths if not (ROOT / path).exists())


@pytest.mark.parametrize("name", NAMES)
def test_every_command_refers_to_what_exists(name: str) -> None:
    commands = [step["run"] for step in steps(read(name)) if "run" in step]
    assert commands
    assert not [each for command in commands for each in missing(command)]


def test_what_does_not_exist_is_found() -> None:
    command = "uv sync --group test --group nothing; tests/release/run; tests/run; python -m tools.nothing"
    assert list(missing(command)) == ["nothing", "tools.nothing", "tests/run"]
    assert not list(missing("python -m tools.release tag v1; ./.ci/run; cat dist/nothing $HOME/tests/nothing"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_scripts_that_are_commands_can_be_executed() -> None:
    programs = {step["run"].split()[0] for name in NAMES for step in steps(read(name)) if "run" in step}
    scripts = {program for program in programs if (ROOT / program).exists()}
    assert "tests/release/run" in scripts
    assert not [script for script in scripts if not (ROOT / script).stat().st_mode & 0o100]


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_and_own_workflows_exist(name: str) -> None:
    others = [each for each in used(read(name)) if not PINNED.fullmatch(each)]
    assert all(each.startswith("./") and (ROOT / each).exists() for each in others), others


@pytest.mark.parametrize("name", NAMES)
def test_every_job_has_a_time_limit_and_names_its_permissions(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 20
        assert job["permissions"]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_publishing_job_may_write_anything(name: str) -> None:
    writers = {
        (key, scope, access)
        for key, job in read(name)["jobs"].items()
        for scope, access in job["permissions"].items()
        if access != "read"
    }
    assert writers == ({("publish", "id-token", "write")} if name == "release.yml" else set())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_keeps_no_credentials(name: str) -> None:
    checkouts = [step for step in steps(read(name)) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_release_starts_with_a_tag_and_publishes_after_everything_else() -> None:
    workflow = read("release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}, "YAML reads the key `on` as true"
    jobs = workflow["jobs"]
    assert jobs["checks"]["uses"] == "./.github/workflows/ci.yml"
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert jobs["publish"]["environment"] == "pypi"
    assert not [key for key, job in jobs.items() if "if" in job or job.get("continue-on-error")]


def test_what_is_published_is_what_was_checked() -> None:
    """The publishing job runs no command; it downloads what the checks uploaded."""
    (upload,) = (step for step in steps(read("ci.yml")) if "upload-artifact@" in step.get("uses", ""))
    download, publish = read("release.yml")["jobs"]["publish"]["steps"]
    assert "download-artifact@" in download["uses"]
    assert download["with"] == {key: upload["with"][key] for key in ("name", "path")}
    assert publish["with"] == {"attestations": True}
    package = read("ci.yml")["jobs"]["package"]["steps"]
    assert package.index(upload) > [step.get("run") for step in package].index("tests/release/run")


def test_the_checks_of_a_release_are_all_of_those_of_a_change() -> None:
    workflow = read("ci.yml")
    assert {"push", "pull_request", "workflow_call"} <= workflow[True].keys()
    assert not [key for key, job in workflow["jobs"].items() if "if" in job or job.get("continue-on-error")]
