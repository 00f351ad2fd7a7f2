"""The entry point: what it says when something is missing, and how errors end."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations.cli import _app, _main
from lmstudio_integrations.cli._app import OF_LM_STUDIO
from tests.cli.managed import COMMANDS, Piped, Run, of_commands
from tests.cli.terminal import SCRIPT


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_sentence_names_what_to_install(missing: str) -> None:
    run = run_python(f"import sys; sys.modules[{missing!r}] = None; {SCRIPT}")
    assert run.returncode == 1
    assert run.stderr.splitlines() == [f"The command line needs its extra; run: {install_command('cli')}"]
    assert run.stdout == ""


@pytest.mark.slow
def test_another_missing_module_is_not_blamed_on_the_extra() -> None:
    hidden = "import sys; sys.modules['pydantic_core'] = None"
    run = run_python(f"{hidden}; {SCRIPT}")
    assert run.returncode == 1
    assert "pydantic_core" in run.stderr
    assert "needs its extra" not in run.stderr


WRONG_USAGE = of_commands(
    {
        "serve --port x": "invalid value for --port: 'x' is not a whole number",
        "serve --port 70000": "invalid value for --port: '70000' is more than 65535",
        "serve --worker-memory 0": "invalid value for --worker-memory: '0' is less than 1",
        "plan": "missing argument 'MODEL[:CONTEXT][@SLOTS]...'",
        "serve --port": "option --port requires an argument",
        "doctor extra": "unexpected argument 'extra'",
        "ls --jsn": "no such option: --jsn; did you mean --json?",
    }
) | {
    "chat": "no such command 'chat'; LM Studio itself has it: `lms chat`",
    "bake": "no such command 'bake'",
    f"{COMMANDS[0]}x": f"no such command '{COMMANDS[0]}x'; did you mean {COMMANDS[0]!r}?",
}


@pytest.mark.parametrize(("arguments", "problem"), WRONG_USAGE.items())
def test_wrong_usage_is_one_line_that_names_the_value_and_the_help(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: str, problem: str
) -> None:
    assert run(*arguments.split()) == 2
    err = capsys.readouterr().err
    command = "lmsi" if "no such command" in problem else f"lmsi {arguments.split(maxsplit=1)[0]}"
    see = " See" if problem.endswith("?") else "; see"
    assert err == f"Error: {problem}{see} `{command} --help`\n"


BEFORE_ANY_SERVER = of_commands(
    {
        "serve --token abc": "the API token of --token is malformed",
        "serve --catalog no/such.toml": "cannot read the catalog 'no/such.toml': No such file or directory",
        "serve --rules no/such.toml": "cannot read the rules 'no/such.toml': No such file or directory",
        "serve --token-file no/such": "cannot read the token file 'no/such': No such file or directory",
        "demo --svg no/such.svg": "'no/such.svg' cannot be written, because there is no folder no",
    }
)


@pytest.mark.parametrize(("arguments", "problem"), BEFORE_ANY_SERVER.items())
def test_an_option_that_cannot_be_used_is_wrong_usage_before_any_server_is_asked(
    piped: Piped, arguments: str, problem: str
) -> None:
    status, out, err = piped(*arguments.split())
    assert (status, out) == (2, "")
    assert problem in err
    assert "Errno" not in err
    assert not Path("no").exists()


def test_no_command_is_named_as_one_that_another_program_has() -> None:
    assert not OF_LM_STUDIO & _app.COMMANDS.keys()


def test_the_version_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == version("lmstudio-integrations")


def test_a_process_without_stdout_succeeds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run("--version") == 0


def test_without_a_command_the_help_is_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    shown = capsys.readouterr()
    assert set(COMMANDS) <= set((shown.out + shown.err).split())


def test_the_command_has_a_long_and_a_short_name() -> None:
    main = "lmstudio_integrations.cli._main:main"
    names = [each for each in entry_points(group="console_scripts") if each.value == main]
    assert {each.name for each in names} == {"lmstudio-integrations", "lmsi"}
    assert all(each.load() is _main.main for each in names)


@pytest.mark.slow
def test_ctrl_c_while_it_is_starting_ends_it_without_a_traceback() -> None:
    run = run_python(
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n" + SCRIPT
    )
    assert (run.returncode, run.stdout, run.stderr) == (_main.INTERRUPTED, "", "")


@pytest.mark.slow
def test_the_help_imports_no_command() -> None:
    imported = "[name for name in sys.modules if name.startswith('lmstudio_integrations.cli.')]"
    run = run_python(
        "import atexit, sys; from lmstudio_integrations.cli._main import main; "
        f"sys.argv = ['lmsi', '--help']; atexit.register(lambda: print({imported}, file=sys.stderr)); main()"
    )
    assert all(name in run.stdout for name in COMMANDS)
    shared = [f"lmstudio_integrations.cli.{name}" for name in ("_formatting", "_main", "_app")]
    assert run.stderr.strip() == str(shared)


@pytest.mark.slow
def test_a_shell_completes_the_name_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LMSI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"lmsi {COMMANDS[-1][:-1]}")
    monkeypatch.setenv("COMP_CWORD", "1")
    run = run_python(f"import sys; sys.argv[0] = 'lmsi'; {SCRIPT}")
    assert run.stdout.split() == [COMMANDS[-1]]
    assert run.stderr == ""
