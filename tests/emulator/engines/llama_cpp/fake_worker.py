"""Parameters and fakes of a worker, for tests."""

from pathlib import Path

import pytest

from lmstudio_integrations.emulator.engines.llama_cpp import worker_main
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import Worker
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters

FULL = WorkerParameters(
    model="m.gguf",
    context_length=512,
    slots=3,
    threads=2,
    projector="p.gguf",
    chat_template="T",
    gpu_layers=4,
    auto_fit=False,
    context_checkpoints=3,
    flash_attention=True,
    cache_types=("q8_0", "f16"),
)


async def fake_worker(
    script: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    seconds: float = 30,
    parameters: WorkerParameters = FULL,
) -> Worker:
    """Start a process that runs a script instead of the worker's."""
    path = tmp_path / "fake_worker.py"
    path.write_text(script, encoding="utf-8")
    monkeypatch.setattr(worker_main, "__file__", str(path))
    return await Worker.start(parameters, seconds=seconds)
