"""The memory limit of a worker_main."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.llama_cpp import worker_client, worker_main
from lmstudio_integrations.errors import LMStudioValueError


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_stricter_limit_of_the_system_stays() -> None:
    script = (
        "import resource, worker_main; resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)); "
        "worker_main.limit_memory(2 * 10**9); print(resource.getrlimit(resource.RLIMIT_DATA))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(worker_main.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert result.stdout == "(1000000000, 1000000000)\n"


def test_by_default_a_worker_may_take_three_quarters_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "memory_of_machine", lambda: 4000)
    monkeypatch.setattr(worker_client, "sys", SimpleNamespace(platform="linux"))
    assert [worker_client.memory_limit(None), worker_client.memory_limit(7)] == [3000, 7]
    with pytest.raises(LMStudioValueError, match="above 0; got 0"):
        Emulator(worker_memory=0)
    with pytest.raises(LMStudioValueError, match="above 0; got '1 GB'"):
        Emulator(worker_memory=cast("Any", "1 GB"))
    monkeypatch.setattr(worker_client, "sys", SimpleNamespace(platform="darwin"))
    assert worker_client.memory_limit(None) == 0
    with pytest.raises(LMStudioValueError, match="on Linux only"):
        Emulator(worker_memory=7)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report it in another way")
def test_the_memory_of_a_container_is_what_counts_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(worker_client, "_CONTROL_GROUP", group)
    whole = worker_client.memory_of_machine()
    assert whole > 1_000_000
    for text, expected in (("max\n", whole), ("4096\n", 4096)):
        group.write_text(text)
        assert worker_client.memory_of_machine() == expected
