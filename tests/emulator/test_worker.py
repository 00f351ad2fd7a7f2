"""The worker process: its agreement with the parent, and the names that it sets in the engine. All ours."""

import asyncio
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import xllamacpp

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import GenerateRequest, Image
from lmstudio_integrations.emulator.engines.errors import EngineError, load_failed
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel, memory, worker, worker_process
from lmstudio_integrations.emulator.engines.llama_cpp.engine import Abilities
from lmstudio_integrations.emulator.engines.llama_cpp.error_responses import error_from_response, unsupported
from lmstudio_integrations.emulator.engines.llama_cpp.worker import WorkerParameters
from lmstudio_integrations.emulator.engines.llama_cpp.worker_process import Lines, Worker, decode, encode, read_line
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import LlmPredictionFragment

FULL = WorkerParameters(
    model="m.gguf",
    context_length=512,
    slots=3,
    threads=2,
    projector="p.gguf",
    chat_template="T",
    gpu_layers=4,
    flash_attention=True,
    cache_types=("q8_0", "f16"),
)


def value_at(target: Any, name: str) -> Any:
    for part in name.split("."):
        target = getattr(target, part)
    return target


def test_every_attribute_that_is_set_exists_and_takes_the_value() -> None:
    target = xllamacpp.CommonParams()
    for name, value in worker.attributes(FULL, xllamacpp, "key").items():
        value_at(target, name)
        worker._assign(target, name, value)
        assert value_at(target, name) == value
    assert {"handle_completions", "handle_embeddings", "listening_address"} <= set(dir(xllamacpp.Server))


def test_only_the_worker_touches_the_engine() -> None:
    package = Path(worker.__file__).parents[2]
    touch = re.compile(r"""(import |import_module\(")xllamacpp""")
    users = [path.name for path in package.rglob("*.py") if touch.search(path.read_text(encoding="utf-8"))]
    assert users == ["worker.py"]


def test_the_server_is_never_open_to_others() -> None:
    values = worker.attributes(FULL, xllamacpp, "key")
    assert values["hostnames"] == ["127.0.0.1"]
    assert values["port"] == 0
    assert values["api_keys"] == ["key"]
    assert values["n_threads_http"] > FULL.slots


def test_windows_and_batches_are_as_large_as_needed() -> None:
    own = worker.attributes(FULL, xllamacpp, "key")
    assert (own["n_ctx"], own["kv_unified"], own["n_batch"]) == (1536, False, worker.PROMPT_STEP)
    shared = worker.attributes(WorkerParameters("m", 512, slots=3, cache_length=512), xllamacpp, "key")
    assert (shared["n_ctx"], shared["kv_unified"]) == (512, True)
    # A text longer than the batch would be refused.
    vectors = worker.attributes(WorkerParameters("m", 512, embedding=True), xllamacpp, "key")
    assert (vectors["n_batch"], vectors["n_ubatch"]) == (512, 512)
    assert "n_gpu_layers" not in vectors
    assert "flash_attn_type" not in vectors


def test_earlier_prompts_do_not_pile_up_in_memory() -> None:
    assert worker.attributes(FULL, xllamacpp, "key")["cache_ram_mib"] == 0


def test_a_batch_has_room_for_every_slot() -> None:
    many = worker.attributes(WorkerParameters("m", 512, slots=200), xllamacpp, "key")
    assert many["n_batch"] == many["n_ubatch"] == 200


@pytest.mark.parametrize(("window", "slots", "batch"), [(511, 4, 512), (1, 4, 4), (512, 4, 512), (5, 1, 5)])
def test_the_slots_of_an_embedding_model_share_a_batch_evenly(window: int, slots: int, batch: int) -> None:
    values = worker.attributes(WorkerParameters("m", window, slots=slots, embedding=True), xllamacpp, "key")
    assert values["n_batch"] == values["n_ubatch"] == batch


def run_worker(line: str) -> tuple[dict[str, str], int]:
    result = subprocess.run(
        [sys.executable, "-P", str(worker.__file__)],
        input=line,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    (answer,) = result.stdout.splitlines()
    return json.loads(answer), result.returncode


@pytest.mark.parametrize("line", ["", "not json\n", "[]\n", '{"unknown": 1}\n'])
def test_bad_parameters_are_answered(line: str) -> None:
    answer, code = run_worker(line)
    assert answer["kind"] == "bad_parameters"
    assert answer["error"]
    assert code == 0


def test_a_model_that_cannot_be_loaded_is_answered(tmp_path: Path) -> None:
    answer, code = run_worker(WorkerParameters(str(tmp_path / "missing.gguf"), 64).to_json() + "\n")
    assert answer["kind"] == "load_failed"
    assert "RuntimeError" in answer["error"]
    assert code == 0


def test_a_missing_engine_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    server, answer = worker._load(FULL.to_json().encode())
    assert server is None
    assert answer["kind"] == "engine_missing"
    error = worker_process._load_error(answer, FULL)
    assert 'pip install "lmstudio-integrations[emulator]"' in error.title


def test_a_template_of_ones_own_may_be_what_cannot_be_loaded() -> None:
    answer = {"error": "RuntimeError: Failed to init server", "kind": "load_failed"}
    assert "promptTemplate" in str(worker_process._load_error(answer, FULL).suggestion)
    assert "promptTemplate" not in str(worker_process._load_error(answer, replace(FULL, chat_template="")).suggestion)


class FakeServer:
    """Takes the engine's place: remembers what it was given and called."""

    listening_address = "http://127.0.0.1:1"

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def handle_embeddings(self, body: dict[str, Any]) -> None:
        self.calls.append(("embeddings", body))

    def handle_completions(self, body: dict[str, Any]) -> None:
        self.calls.append(("completions", body))


class FakeEngine:
    """The engine's names with a server that loads nothing."""

    CommonParams = xllamacpp.CommonParams
    ggml_type = xllamacpp.ggml_type
    llama_flash_attn_type = xllamacpp.llama_flash_attn_type
    Server = FakeServer


@pytest.mark.parametrize("embedding", [True, False])
def test_a_call_goes_through_the_engine_before_the_model_is_ready(embedding: bool) -> None:
    server, key = worker.start(WorkerParameters("m", 64, embedding=embedding), FakeEngine)
    assert [name for name, _ in server.calls] == ["embeddings" if embedding else "completions"]
    assert server.parameters.api_keys == [key]
    assert len(key) == 32


def test_the_worker_answers_serves_and_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(worker.__file__).parent)!r})\n"
        "import worker\n"
        "class Server:\n    listening_address = 'http://here'\n"
        "worker._load = lambda line: (Server(), {'line': line.decode().strip()})\n"
        "print('noise of the engine')\n"
        "worker.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "noise of the engine\n"
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"line": "hello"}
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 0


def test_lines_end_at_line_feeds_only() -> None:
    lines = Lines()
    text = 'data: {"a":"\u2028\x85 \u00e9"}\n'.encode()
    assert lines.feed(text[:14]) == []
    assert lines.feed(text[14:] + b"\r\nrest") == ['data: {"a":"\u2028\x85 \u00e9"}', ""]


def test_lines_of_a_stream_are_chunks_marks_or_errors() -> None:
    assert read_line('data: {"a": 1}') == {"a": 1}
    assert read_line("data: [DONE]") is None
    assert read_line("") is None
    assert read_line(": ping") is None
    with pytest.raises(EngineError, match="bad"):
        read_line('data: {"error": {"message": "bad"}}')
    with pytest.raises(EngineError, match="bad"):
        read_line('error: {"message": "bad"}')


HUNGRY = """
import sys
sys.path.insert(0, {directory!r})
import worker
worker.limit_memory(worker.WorkerParameters(**worker.json.loads(sys.stdin.readline())).memory_bytes)
try:
    bytearray(1 << 30)
except MemoryError:
    sys.exit(9)
print('{{"error": "has a gigabyte", "kind": "load_failed"}}', flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
@pytest.mark.parametrize(("memory", "end"), [(256_000_000, r"\(Exit code: 9\)"), (0, "has a gigabyte")])
async def test_a_worker_gets_no_more_memory_than_its_limit(
    memory: int, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = HUNGRY.format(directory=str(Path(worker.__file__).parent))
    monkeypatch.setattr(sys.modules[__name__], "FULL", replace(FULL, memory_bytes=memory))
    with pytest.raises(EngineError) as caught:
        await fake_worker(script, monkeypatch, tmp_path)
    assert re.search(end, str(caught.value.cause))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_stricter_limit_of_the_system_stays() -> None:
    script = (
        "import resource, worker; resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)); "
        "worker.limit_memory(2 * 10**9); print(resource.getrlimit(resource.RLIMIT_DATA))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(worker.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert result.stdout == "(1000000000, 1000000000)\n"


def test_by_default_a_worker_may_take_three_quarters_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 4000)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="linux"))
    assert [memory.memory_limit(None), memory.memory_limit(7)] == [3000, 7]
    with pytest.raises(LMStudioValueError, match="above 0, got 0"):
        Emulator(worker_memory=0)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="darwin"))
    assert memory.memory_limit(None) == 0
    with pytest.raises(LMStudioValueError, match="on Linux only"):
        Emulator(worker_memory=7)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell it otherwise")
def test_the_memory_of_a_container_is_what_counts_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTROL_GROUP", group)
    whole = memory.memory_of_machine()
    assert whole > 1_000_000
    for text, expected in (("max\n", whole), ("4096\n", 4096)):
        group.write_text(text)
        assert memory.memory_of_machine() == expected


def test_text_that_is_no_json_stays_text() -> None:
    assert decode("<html>") == "<html>"


def test_halves_of_characters_do_not_stop_a_request() -> None:
    assert encode({"a": "\u00e9"}) == '{"a": "\u00e9"}'.encode()
    assert json.loads(encode({"a": "x\ud83d", "b": "\ud83d\ude00"})) == {"a": "x\ufffd", "b": "\U0001f600"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5}, "first 9 tokens .* only 5 tokens"),
        ({"message": "Jinja Exception: roles"}, "Error rendering prompt with jinja template"),
        ({"message": "Automatic: JSON schema error at #: no"}, "setting: JSON schema error at #: no"),
        ({"message": "Context size has been exceeded."}, "exceed the available context"),
        ({"message": "failed to parse grammar"}, "grammar cannot be parsed"),
        ({"message": "Jinja Exception: std::bad_alloc"}, "ran out of memory"),
        ({"message": "odd"}, "^odd$"),
    ],
)
def test_the_engines_errors_are_said_as_the_server_says_them(error: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        raise error_from_response({"error": error})


def test_a_refusal_names_the_engines_version(monkeypatch: pytest.MonkeyPatch) -> None:
    data = unsupported("vision", "no eyes").display_data
    assert data is not None
    assert data["installedVersion"][0].isdigit()

    def missing(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    data = unsupported("vision", "no eyes").display_data
    assert data is not None
    assert data["installedVersion"] == "unknown"
    assert data["supportedVersion"] is None


def test_an_error_of_no_form_is_quoted() -> None:
    assert error_from_response("<html>").title == "<html>"


async def fake_worker(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, seconds: float = 30) -> Worker:
    """Start a process that answers as the script says."""
    path = tmp_path / "fake_worker.py"
    path.write_text(script, encoding="utf-8")
    monkeypatch.setattr(worker, "__file__", str(path))
    return await Worker.start(FULL, seconds=seconds)


async def test_a_worker_that_dies_while_loading_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('boom' * 9000 + 'LAST'); sys.exit(7)"
    with pytest.raises(EngineError) as caught:
        await fake_worker(script, monkeypatch, tmp_path)
    assert "(Exit code: 7)" in str(caught.value.cause)
    assert str(caught.value.cause).endswith("LAST")


async def test_a_worker_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        await fake_worker("import sys; sys.stdin.read()", monkeypatch, tmp_path, seconds=0.5)
    assert "within 0.5 s" in str(caught.value.cause)


async def test_a_missing_http_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    script = 'import sys; print(\'{"url": "http://127.0.0.1:1", "key": "k"}\', flush=True); sys.stdin.read()'
    with pytest.raises(EngineError, match=r'needs more packages: pip install "lmstudio-integrations\[emulator\]"'):
        await fake_worker(script, monkeypatch, tmp_path)


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"url": "http://127.0.0.1:1", "key": "k"}', flush=True)
signal.pause()
"""


async def test_a_worker_that_will_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    stubborn = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    await stubborn.close()
    assert stubborn._process.returncode == -9


async def test_a_worker_that_lives_but_does_not_answer_is_killed_as_crashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    mute = await fake_worker(STUBBORN, monkeypatch, tmp_path)
    try:
        with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
            await mute.call("/props")
        assert caught.value.fatal
        assert "did not answer" in str(caught.value.cause)
    finally:
        await mute.close()
    with pytest.raises(EngineError, match="unloaded"):
        await mute.call("/props")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("there is no file /home/me/m.gguf", "there is no file m.gguf"),
        ("'~/models/m.gguf' is cut off", "'m.gguf' is cut off"),
        (r"C:\Users\me\m.gguf and \\host\share\m.gguf", "m.gguf and m.gguf"),
        ("either/or, 1/2, https://example.com/a/b", "either/or, 1/2, https://example.com/a/b"),
    ],
)
def test_why_a_load_fails_is_told_without_the_servers_directories(text: str, shown: str) -> None:
    assert load_failed(text).cause == shown


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker whose HTTP answers are made up."""
    fake = await fake_worker(STUBBORN.replace("SIG_IGN", "SIG_DFL"), monkeypatch, tmp_path)
    yield fake
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    await fake.close()


async def test_what_the_engine_says_last_ends_a_stream(served: Worker) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/refused":
            return httpx.Response(400, json={"error": {"message": "bad field"}})
        return httpx.Response(200, content=b'data: {"n": 1}\n\ndata: {"error": {"message": "too bad"}}\n\n')

    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://fake")
    stream = served.stream("/good", {})
    assert await anext(stream) == {"n": 1}
    with pytest.raises(EngineError, match="too bad"):
        await anext(stream)
    with pytest.raises(EngineError, match="bad field"):
        await anext(served.stream("/refused", {}))
    with pytest.raises(EngineError, match="bad field"):
        await served.call("/refused", {})


async def test_large_calls_wait_for_each_other_before_their_time_runs(served: Worker) -> None:
    inside, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0)
        inside -= 1
        return httpx.Response(200, json={})

    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://fake")
    large = {"content": "a" * worker_process.LARGE_CALL}
    await asyncio.gather(*(served.call("/tokenize", large) for _ in range(3)))
    assert most == 1
    await asyncio.gather(*(served.call("/tokenize", {"content": "a"}) for _ in range(3)))
    assert most == 3


async def test_a_call_that_takes_too_long_ends_the_worker(served: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(worker_process, "CALL_SECONDS", 0.1)
    await served._client.aclose()
    served._client = httpx.AsyncClient(transport=httpx.MockTransport(trickle), base_url="http://fake")
    with pytest.raises(EngineError, match=r"has crashed .* \(Exit code: -9\)") as caught:
        await served.call("/apply-template", {})
    assert caught.value.fatal
    assert served._process.returncode == -9


class BrokenOff:
    """A worker whose answers have no end; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {}

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": [1, 2], "input_tokens": 2}

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.asked[path] = body
        yield {"content": "Once", "stop": False}


def with_eyes(fake: Any) -> LlamaCppModel:
    abilities = Abilities(tools=True, vision=True)
    return LlamaCppModel(fake, context_length=64, slots=1, embedding=False, abilities=abilities, seed=5)


def look(**config: Any) -> GenerateRequest:
    chat = Chat()
    picture = FileHandle(name="cat", identifier="c", size_bytes=4, file_type="image")
    chat.add_user_message("What?", images=[picture])
    settings = LlmPredictionConfig(**config)
    return GenerateRequest(settings, chat.to_history(), images={"c": Image("cat", b"\x89PNG")}, context_length=64)


async def test_a_model_with_eyes_gets_the_picture_and_the_seed_of_its_load() -> None:
    fake = BrokenOff()
    with pytest.raises(EngineError, match="ended before it was complete"):
        [event async for event in with_eyes(fake).generate(look())]
    body = fake.asked["/v1/chat/completions"]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"]
    assert body["seed"] == 5
    assert body["max_tokens"] == 62


async def test_a_picture_under_a_template_of_prefixes_is_refused() -> None:
    template = {"type": "manual", "manualPromptTemplate": {"beforeUser": "Q: "}}
    with pytest.raises(EngineError, match="manual template"):
        [event async for event in with_eyes(BrokenOff()).generate(look(prompt_template=template))]


async def test_an_answer_without_an_end_is_an_error() -> None:
    fake: Any = BrokenOff()
    abilities = Abilities(tools=False, vision=False)
    model = LlamaCppModel(fake, context_length=64, slots=1, embedding=False, abilities=abilities)
    events: list[object] = []

    async def collect() -> None:
        async for event in model.generate(GenerateRequest(LlmPredictionConfig(), prompt="x", context_length=64)):
            events.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(EngineError, match="ended before it was complete"):
        await collect()
    assert any(isinstance(event, LlmPredictionFragment) and event.content == "Once" for event in events)


async def test_the_worker_takes_no_part_in_proxies_and_keeps_no_connection(served: Worker) -> None:
    assert served._client.trust_env is False
    assert served._client._transport._pool._max_keepalive_connections == 0
