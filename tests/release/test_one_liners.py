"""The first lines of each framework: they work here, too, but the command rejects a checkout."""

import subprocess
import sys

import pytest

from tests.release import one_liners


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning", "ignore::pydantic.warnings.PydanticDeprecationWarning"
)
@pytest.mark.parametrize("line", one_liners.LINES)
def test_each_line_works(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "deep" in line:
        pytest.importorskip("deepagents", reason="needs the group cookbook")
    monkeypatch.setenv("LMSTUDIO_HOST", "set by the line")
    one_liners.use(line)


@pytest.mark.slow
def test_a_checkout_is_no_wheel() -> None:
    command = [sys.executable, "-P", one_liners.__file__, "load_llm"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 1
    assert "this uses the checkout" in run.stderr
