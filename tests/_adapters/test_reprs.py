"""What everything that a user holds shows of itself: one short line that says what it is, and no secret."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ManualClock, SystemClock
from lmstudio_integrations.llama_index import LMStudio, LMStudioTokenizer
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult, PredictionRoundResult
from tests.client.both import sync_client
from tests.support.adapters import ADAPTERS
from tests.support.leaks import TOKEN, shows_token

CHAT, EMBEDDER = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
MODELS = (CHAT, EMBEDDER, {"key": "elsewhere", "display_name": "Elsewhere", "downloaded": False})
LONGEST = 300
Make: TypeAlias = Callable[[Any], Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(MODELS, load=[CHAT, EMBEDDER], tokens=[TOKEN]) as running:
        yield running


async def later(value: Any) -> Any:
    """Return what a method of either client returns."""
    return await value if inspect.isawaitable(value) else value


def stream(*steps: str) -> Make:
    """Return what begins a stream and calls some of its methods."""

    async def make(client: Any) -> Any:
        made = (await client.llm.model(CHAT)).respond_stream("Hi", config={"maxTokens": 2})
        for step in steps:
            await later(getattr(made, step)())
        return made

    return make


async def failed(client: Any) -> Any:
    stream = client.llm.lazy_model("no-such-model").respond_stream("Hi")
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await stream.wait_for_result()
    return stream


async def downloaded(client: Any) -> Any:
    return (await client.llm.list_downloaded())[0]


async def found(client: Any) -> Any:
    return (await later(client.repository.search_models("elsewhere")))[0]


async def option(client: Any) -> Any:
    return (await later((await found(client)).get_download_options()))[0]


STREAM = f"<ASYNCPredictionStream of {CHAT!r} at HOST: "
HELD: dict[str, tuple[Make, str]] = {
    "client": (lambda client: client, "ASYNCClient(api_host='HOST')"),
    "language models": (lambda client: client.llm, "<ASYNCLlmNamespace at HOST>"),
    "embedding models": (lambda client: client.embedding, "<ASYNCEmbeddingNamespace at HOST>"),
    "files": (lambda client: client.files, "<ASYNCFilesNamespace at HOST>"),
    "repository": (lambda client: client.repository, "<ASYNCRepositoryNamespace at HOST>"),
    "system": (lambda client: client.system, "<ASYNCSystemNamespace at HOST>"),
    "model": (lambda client: client.llm.model(CHAT), f"ASYNCLLM(identifier={CHAT!r})"),
    "lazy model": (lambda client: client.llm.lazy_model(), "ASYNCLLM(identifier='any loaded model')"),
    "embedding model": (
        lambda client: client.embedding.model(EMBEDDER),
        f"ASYNCEmbeddingModel(identifier={EMBEDDER!r})",
    ),
    "downloaded model": (downloaded, f"ASYNCDownloadedLlm(model_key={CHAT!r})"),
    "found model": (found, "ASYNCAvailableModel(name='Elsewhere')"),
    "download option": (option, "ASYNCDownloadOption(name='Elsewhere', size_bytes=1000000)"),
    "new stream": (stream(), f"{STREAM}0 fragments, not started>"),
    "started stream": (stream("start"), f"{STREAM}0 fragments, running>"),
    "ended stream": (stream("wait_for_result"), f"{STREAM}2 fragments, ended>"),
    "closed stream": (stream("start", "aclose"), f"{STREAM}0 fragments, closed>"),
    "cancelled stream": (stream("cancel"), f"{STREAM}0 fragments, cancelled>"),
    "failed stream": (failed, "<ASYNCPredictionStream of 'no-such-model' at HOST: 0 fragments, failed>"),
}
"""What users get from a client, and what it shows."""


def shown(held: object) -> str:
    """Return what an object shows: a short line without an address in memory, and without the token."""
    text = repr(held)
    assert "\n" not in text
    assert len(text) <= LONGEST
    assert " object at 0x" not in text
    assert not shows_token(text)
    return text


@pytest.mark.parametrize("make_client", [sync_client, lms.AsyncClient])
@pytest.mark.parametrize("name", HELD)
async def test_the_repr_of_what_a_client_returns(server: Emulator, make_client: Any, name: str) -> None:
    make, text = HELD[name]
    async with make_client(server.address, TOKEN, headers={"X-Key": TOKEN}) as client:
        held = await later(make(client))
        expected = text.replace("ASYNC", "" if make_client is sync_client else "Async").replace("HOST", server.address)
        assert shown(getattr(held, "sync", held)) == expected


async def test_the_repr_of_an_iterator_of_an_async_client(server: Emulator) -> None:
    async with lms.AsyncClient(server.address, TOKEN) as client:
        made, model = await stream()(client), f"{CHAT!r} at {server.address}"
        assert shown(made.batches()) == f"<AsyncBatches of {model}: 0 fragments, not started>"
        fragments = aiter(made)
        await anext(fragments)
        assert re.fullmatch(f"<AsyncFragments of {model}: [12] fragments?, (running|ended)>", shown(fragments))


def test_a_client_without_a_host_names_this_machine() -> None:
    assert shown(lms.Client().llm) == "<LlmNamespace at this machine>"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_shows_only_the_settings_that_were_changed(name: str) -> None:
    headers = {"X-Key": TOKEN}
    adapter = ADAPTERS[name]
    made = adapter.make(model="m", host="h:1", api_token=TOKEN, headers=headers, ttl=5, timeout=None)
    text = shown(made)
    assert text.startswith(f"{adapter.name}(")
    assert {"model='m'", "host='h:1'", "ttl=5.0"} <= set(text[len(adapter.name) + 1 : -1].split(", "))
    assert not [absent for absent in ("timeout", "headers", "callback", "prompt") if absent in text]
    assert shown(str(made))
    made.idle_timeout = 7.0
    assert "idle_timeout=7.0" in shown(made)


def test_a_tokenizer_shows_its_model() -> None:
    assert (
        shown(LMStudioTokenizer(LMStudio(model="m", host="h:1")))
        == "LMStudioTokenizer(LMStudio(model='m', host='h:1'))"
    )


def test_an_emulator_shows_where_it_runs_and_its_models() -> None:
    emulator = Emulator(MODELS, tokens=[TOKEN])
    assert shown(emulator) == "<Emulator of 3 models, not running>"
    with emulator:
        emulator.load(CHAT)
        assert shown(emulator) == f"<Emulator at {emulator.address}: 3 models, 1 loaded>"
        assert shown(emulator.loads[0])
    assert shown(emulator) == "<Emulator of 3 models, not running>"
    assert shown(Emulator([CHAT])) == "<Emulator of 1 model, not running>"


def test_the_repr_of_manual_time() -> None:
    clock = ManualClock()
    clock.advance(1.5)
    assert shown(clock) == "<ManualClock at 1.5 s>"
    assert shown(SystemClock()) == "SystemClock()"


def test_fixtures_of_pytest_show_what_they_are(lmstudio_emulator: Emulator, lmstudio_host: str) -> None:
    assert shown(lmstudio_emulator).startswith(f"<Emulator at {lmstudio_host}: ")


def test_a_result_shows_the_beginning_of_a_long_response() -> None:
    end = PredictionEnd({"stopReason": "eosFound"}, {}, {}, {})
    assert shown(PredictionResult("a\nb", "", end)) == "PredictionResult(content='a\\nb', stop_reason='eosFound')"
    assert shown(PredictionRoundResult("a" * 5_000, "", end)).startswith("PredictionRoundResult(content='aaaa")


def test_configs_and_infos_show_only_what_is_set(server: Emulator) -> None:
    assert shown(lms.LlmPredictionConfig(temperature=0.5)) == "LlmPredictionConfig(temperature=0.5)"
    assert shown(lms.LlmLoadModelConfig(context_length=None)) == "LlmLoadModelConfig(context_length=None)"
    with lms.Client(server.address, TOKEN) as client:
        result = client.llm.model(CHAT).respond("Hi", config={"maxTokens": 2})
        assert "=None" not in shown(result.stats)
        assert shown(client.files.prepare_file(TOKEN.encode(), name="a.txt")).startswith("FileHandle(")
