"""The pages run: their programs, the tests and workflows on them; and what they state about LangChain is true."""

import logging
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_core import exceptions as core

import lmstudio_integrations as lms
from lmstudio_integrations import errors
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain._errors import _CLASSES, as_langchain_error
from tests.docs.snippets import ROOT, blocks, read
from tools.outputs import CHAT, normalize

DOCS = ROOT / "docs"
SOURCES = ("docs/*.md", *(f"docs/{name}/*.md" for name in ("guides", "langchain", "llama-index", "tools")))
RUN_ELSEWHERE = {
    "docs/protocol.md",
    "docs/guides/logs-and-traces.md",
    "docs/guides/ray-data.md",
    "docs/tools/catalog.md",
}
"""Pages whose programs other tests run."""

PAGES = {
    page: read(page)
    for source in SOURCES
    for page in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(source))
    if page not in RUN_ELSEWHERE
}
SHOWING = {"docs/guides/lm-studio-tools.md", "docs/guides/tools-with-small-models.md"}
"""Pages whose outputs are those of `scripted` or of a server that they start. `tools.outputs` writes the others."""

ROW = re.compile(r"^\| `(LMStudio\w+)` \| `(\w+)` \| (yes|no) \|$", re.MULTILINE)


def programs(page: str) -> list[str]:
    """Return the Python programs on a page, without example tests, which pytest runs."""
    return [code for code in blocks(page) if "def test_" not in code]


@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning",
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
)
@pytest.mark.usefixtures("framework_defaults")
@pytest.mark.slow  # an agent may start a process, and the emulator an engine
@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)])
def test_the_programs_on_a_page_run_in_order(
    page: str, scripted: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.load(CHAT)  # as for the outputs on the page
    namespace: dict[str, Any] = {"__name__": "page"}
    with monkeypatch.context() as outside_of_pytest:
        outside_of_pytest.setattr(logging.getLogger(), "handlers", [])
        for number, program in enumerate(programs(page), start=1):
            exec(compile(program, f"{page}-{number}", "exec"), namespace)
    printed, code = capsys.readouterr().out, "".join(programs(page))
    assert printed.strip() or "assert" in code or "print(" not in code
    if page in SHOWING:
        assert normalize(printed) == "".join(blocks(page, "text"))


# The page about workflows --------------------------------------------------------------------------------------------

WORKFLOW_PAGE = "docs/tools/testing.md"


APP = ROOT / "cookbook/testing_an_app"
"""An app with tests, and the workflow that runs them; the page shows its files."""

WORKFLOW = (APP / "workflow.yml").read_text(encoding="utf-8")
WORKFLOWS: list[Any] = [yaml.safe_load(code) for code in (WORKFLOW, *blocks(WORKFLOW_PAGE, "yaml"))]
"""The workflow on the page, and a list of steps."""

STEPS = [step for each in WORKFLOWS for step in (each if isinstance(each, list) else each["jobs"]["test"]["steps"])]


def test_the_workflow_names_extras_that_exist_and_the_page_shows_all_files_of_its_app() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    commands = "\n".join(step.get("run", "") for step in STEPS)
    extras = {extra for names in re.findall(r"\[([\w,-]+)\]", commands) for extra in names.split(",")}
    assert extras
    assert extras <= project["optional-dependencies"].keys()
    shown = re.findall(r'--8<-- "(.+)"', read(WORKFLOW_PAGE))
    assert sorted(shown) == sorted(path.relative_to(ROOT).as_posix() for path in APP.iterdir() if path.is_file())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the workflow runs on Linux")
def test_the_server_of_a_workflow_starts_and_later_steps_find_it(tmp_path: Path) -> None:
    (script,) = (step["run"] for step in STEPS if step.get("name") == "Start the emulator")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "GITHUB_ENV": str(tmp_path / "env")}
    command = ["bash", "-e", "-c", f"{script}\necho $!"]
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, timeout=600, check=True
    )
    try:
        name, _, address = (tmp_path / "env").read_text(encoding="utf-8").strip().partition("=")
        assert name == "LMSTUDIO_HOST"
        with lms.Client(address) as client:
            assert client.llm.model("demo").respond("Hello!").content
    finally:
        subprocess.run(["kill", started.stdout.strip()], check=True)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_tests_on_the_pages_pass(tmp_path: Path) -> None:
    """In a folder with the files of the workflow, by the command of its last step."""
    for path in APP.glob("*.py"):
        shutil.copy(path, tmp_path)
    examples = [code for code in blocks(WORKFLOW_PAGE) if "def test_" in code]
    for number, code in enumerate(examples):
        (tmp_path / f"test_page_{number}.py").write_text(code, encoding="utf-8")
    (command,) = (line for line in WORKFLOW.splitlines() if "run: pytest" in line)
    pages = sorted(path.name for path in tmp_path.glob("test_page_*"))
    warnings = ["-W", "error", "-W", "ignore:'asyncio.iscoroutinefunction' is deprecated"]  # langsmith calls it
    arguments = [*command.partition("run: pytest")[2].split(), *pages, "-q", *warnings, "-p", "no:asyncio"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    written = sum(code.count("\ndef test_") for code in examples)
    assert f"{5 + written} passed" in run.stdout, run.stdout + run.stderr


# Statements about LangChain -----------------------------------------------------------------------------------------


def test_the_reference_lists_the_langchain_error_and_whether_it_is_retryable() -> None:
    rows = ROW.findall((DOCS / "reference" / "langchain.md").read_text(encoding="utf-8"))
    for name, base, retryable in rows:
        error = as_langchain_error(getattr(errors, name)("no"))
        assert isinstance(error, getattr(core, base)), name
        assert isinstance(error, core.ModelError)
        assert error.is_retryable == (retryable == "yes"), name
    listed = {getattr(errors, name) for name, _, _ in rows}
    others = [mapped for base, mapped in _CLASSES.items() if base not in listed]
    assert others
    assert not any(issubclass(mapped, core.ModelError) and mapped.is_retryable for mapped in others)
