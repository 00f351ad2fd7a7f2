"""The script of the worker process: the engine's parameters, what it reports to the parent, and its memory limit."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import xllamacpp

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.llama_cpp import worker_client, worker_main
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.engines.llama_cpp.models import FULL


def attributes(parameters: WorkerParameters) -> dict[str, Any]:
    return worker_main.attributes(parameters, xllamacpp, "key")


class FakeServer:
    """Takes the place of the engine's server, and loads nothing."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.called: list[str] = []

    def handle_embeddings(self, _body: object) -> None:
        self.called.append("embeddings")

    def handle_completions(self, _body: object) -> None:
        self.called.append("completions")


@pytest.mark.parametrize(("embedding", "called"), [(True, ["embeddings"]), (False, ["completions"])])
def test_a_model_is_ready_after_a_call_passed_through_the_engine_which_took_every_value(
    embedding: bool, called: list[str]
) -> None:
    engine = SimpleNamespace(**{**vars(xllamacpp), "Server": FakeServer})
    parameters = replace(FULL, embedding=embedding)
    server, key = worker_main.start(parameters, engine)
    assert server.called == called
    assert len(key) == 32
    for name, value in worker_main.attributes(parameters, xllamacpp, key).items():
        target = server.parameters
        for part in name.split("."):
            target = getattr(target, part)
        assert target == value
    assert {"handle_completions", "handle_embeddings", "listening_address"} <= set(dir(xllamacpp.Server))


def test_only_the_worker_touches_the_engine() -> None:
    package = Path(worker_main.__file__).parents[2]
    touch = re.compile(r"""(import |import_module\(")xllamacpp""")
    users = [path.name for path in package.rglob("*.py") if touch.search(path.read_text(encoding="utf-8"))]
    assert users == ["worker_main.py"]


def test_the_server_is_never_open_to_others() -> None:
    values = attributes(FULL)
    assert (values["hostnames"], values["port"], values["api_keys"]) == (["127.0.0.1"], 0, ["key"])
    assert values["n_threads_http"] > FULL.slots


def test_contexts_and_caches_are_as_large_as_needed() -> None:
    own, shared = attributes(FULL), attributes(WorkerParameters("m", 512, slots=3, cache_length=512))
    assert (own["n_ctx"], own["kv_unified"]) == (1536, False)
    assert (shared["n_ctx"], shared["kv_unified"]) == (512, True)
    assert attributes(replace(FULL, prompt_cache_mib=5))["cache_ram_mib"] == 5
    assert not attributes(WorkerParameters("m", 512)).keys() & {"n_gpu_layers", "flash_attn_type"}


@pytest.mark.parametrize(
    ("parameters", "batch"),
    [
        (FULL, worker_main.PROMPT_STEP),
        (replace(FULL, prompt_step=32), 32),
        (WorkerParameters("m", 512, slots=200), 200),
        (WorkerParameters("m", 512, embedding=True), 512),
        (WorkerParameters("m", 511, slots=4, embedding=True), 512),
        (WorkerParameters("m", 1, slots=4, embedding=True), 4),
    ],
)
def test_a_batch_has_room_for_a_step_of_every_slot_or_for_texts_that_share_it_evenly(
    parameters: WorkerParameters, batch: int
) -> None:
    assert (attributes(parameters)["n_batch"], attributes(parameters)["n_ubatch"]) == (batch, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "flags", "kind"),
    [
        ("", "-P", "bad_parameters"),
        ('{"unknown": 1}\n', "-P", "bad_parameters"),
        (f"{WorkerParameters('m', 64).to_json()}\n", "-PS", "engine_missing"),  # without the packages of the site
    ],
)
def test_what_keeps_the_worker_from_loading_is_reported_to_the_parent(line: str, flags: str, kind: str) -> None:
    command = [sys.executable, flags, worker_main.__file__]
    result = subprocess.run(command, input=line, capture_output=True, text=True, check=True, timeout=600)
    reply = json.loads(result.stdout)
    assert (reply["kind"], bool(reply["error"])) == (kind, True)


NOISY = f"""
import sys
sys.path.insert(0, {str(Path(worker_main.__file__).parent)!r})
import worker_main

class Noisy:
    listening_address = "http://here"
    def __getattr__(self, name):
        return self
    def __call__(self, *arguments):
        print("noise of the engine")
        return self

sys.modules["xllamacpp"] = Noisy()
worker_main.main()
"""


@pytest.mark.slow
def test_the_worker_reports_one_line_whatever_the_engine_prints_and_exits_after_its_input() -> None:
    command = [sys.executable, "-u", "-c", NOISY]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{WorkerParameters('m', 64).to_json()}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["url"] == "http://here"
        assert process.poll() is None
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out, "noise of the engine" in err) == (0, "", True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_stricter_limit_of_the_system_stays() -> None:
    script = (
        "import resource, worker_main; resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)); "
        "worker_main.limit_memory(2 * 10**9); print(resource.getrlimit(resource.RLIMIT_DATA))"
    )
    command, folder = [sys.executable, "-c", script], Path(worker_main.__file__).parent
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=600)
    assert result.stdout == "(1000000000, 1000000000)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a limit")
def test_by_default_a_worker_may_take_three_quarters_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "memory_of_machine", lambda: 4000)
    assert [worker_client.memory_limit(None), worker_client.memory_limit(7)] == [3000, 7]


@pytest.mark.parametrize(
    ("platform", "memory", "message"),
    [
        ("linux", 0, "above 0; got 0"),
        ("linux", cast("Any", "1 GB"), "above 0; got '1 GB'"),
        ("darwin", 7, "on Linux only"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_rejected(
    monkeypatch: pytest.MonkeyPatch, platform: str, memory: int, message: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(LMStudioValueError, match=message):
        Emulator(worker_memory=memory)
    assert platform == "linux" or worker_client.memory_limit(None) == 0
