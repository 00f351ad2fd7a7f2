"""What everything that a user holds shows of itself: one short line that says what it is, and no secret."""

import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ManualClock, SystemClock
from lmstudio_integrations.llama_index import LMStudio, LMStudioTokenizer
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult, PredictionRoundResult
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


def started(client: lms.Client) -> Any:
    stream = client.llm.model(CHAT).respond_stream("Hi")
    stream.start()
    return stream


def ended(client: lms.Client) -> Any:
    stream = client.llm.model(CHAT).respond_stream("Hi", config={"maxTokens": 2})
    stream.wait_for_result()
    return stream


def closed(client: lms.Client) -> Any:
    stream = started(client)
    stream.close()
    return stream


def cancelled(client: lms.Client) -> Any:
    stream = client.llm.model(CHAT).respond_stream("Hi")
    stream.cancel()
    return stream


def failed(client: lms.Client) -> Any:
    stream = client.llm.lazy_model("no-such-model").respond_stream("Hi")
    with pytest.raises(lms.LMStudioModelNotFoundError):
        stream.wait_for_result()
    return stream


STREAM = f"<PredictionStream of {CHAT!r} at HOST: "
HELD: dict[str, tuple[Make, str]] = {
    "client": (lambda client: client, "Client(api_host='HOST')"),
    "language models": (lambda client: client.llm, "<LlmNamespace at HOST>"),
    "embedding models": (lambda client: client.embedding, "<EmbeddingNamespace at HOST>"),
    "files": (lambda client: client.files, "<FilesNamespace at HOST>"),
    "repository": (lambda client: client.repository, "<RepositoryNamespace at HOST>"),
    "system": (lambda client: client.system, "<SystemNamespace at HOST>"),
    "model": (lambda client: client.llm.model(CHAT), f"LLM(identifier={CHAT!r})"),
    "lazy model": (lambda client: client.llm.lazy_model(), "LLM(identifier='any loaded model')"),
    "embedding model": (lambda client: client.embedding.model(EMBEDDER), f"EmbeddingModel(identifier={EMBEDDER!r})"),
    "downloaded model": (lambda client: client.llm.list_downloaded()[0], f"DownloadedLlm(model_key={CHAT!r})"),
    "found model": (
        lambda client: client.repository.search_models("elsewhere")[0],
        "AvailableModel(name='Elsewhere')",
    ),
    "download option": (
        lambda client: client.repository.search_models("elsewhere")[0].get_download_options()[0],
        "DownloadOption(name='Elsewhere', size_bytes=0)",
    ),
    "new stream": (lambda client: client.llm.model(CHAT).respond_stream("Hi"), f"{STREAM}0 fragments, not started>"),
    "started stream": (started, f"{STREAM}0 fragments, running>"),
    "ended stream": (ended, f"{STREAM}2 fragments, ended>"),
    "closed stream": (closed, f"{STREAM}0 fragments, closed>"),
    "cancelled stream": (cancelled, f"{STREAM}0 fragments, cancelled>"),
    "failed stream": (failed, "<PredictionStream of 'no-such-model' at HOST: 0 fragments, failed>"),
}
"""What users get from a client, and what it shows."""


def expected(text: str, server: Emulator) -> str:
    return text.replace("HOST", server.address)


def shown(held: object) -> str:
    """Return what an object shows: a short line without an address in memory, and without the token."""
    text = repr(held)
    assert "\n" not in text
    assert len(text) <= LONGEST
    assert " object at 0x" not in text
    assert not shows_token(text)
    return text


@pytest.mark.parametrize("name", HELD)
def test_the_repr_of_what_a_client_returns(server: Emulator, name: str) -> None:
    make, text = HELD[name]
    with lms.Client(server.address, TOKEN, headers={"X-Key": TOKEN}) as client:
        assert shown(make(client)) == expected(text, server)


def test_a_client_without_a_host_names_this_machine() -> None:
    assert shown(lms.Client().llm) == "<LlmNamespace at this machine>"


async def found_later(client: lms.AsyncClient) -> Any:
    return (await client.repository.search_models("elsewhere"))[0]


async def download_later(client: lms.AsyncClient) -> Any:
    return (await (await found_later(client)).get_download_options())[0]


async def half_read_later(client: lms.AsyncClient) -> Any:
    fragments = aiter((await client.llm.model(CHAT)).respond_stream("Hi", config={"maxTokens": 2}))
    await anext(fragments)
    return fragments


async def ended_later(client: lms.AsyncClient) -> Any:
    stream = (await client.llm.model(CHAT)).respond_stream("Hi", config={"maxTokens": 2})
    await stream.wait_for_result()
    return stream


async def batches_later(client: lms.AsyncClient) -> Any:
    return (await client.llm.model(CHAT)).respond_stream("Hi").batches()


async def model_later(client: lms.AsyncClient) -> Any:
    return await client.llm.model(CHAT)


HELD_BY_TASKS: dict[str, tuple[Callable[[Any], Coroutine[Any, Any, Any]], str]] = {
    "model": (model_later, f"AsyncLLM\\(identifier={CHAT!r}\\)"),
    "found model": (found_later, r"AsyncAvailableModel\(name='Elsewhere'\)"),
    "download option": (download_later, r"AsyncDownloadOption\(name='Elsewhere', size_bytes=0\)"),
    "fragments": (half_read_later, f"<AsyncFragments of {CHAT!r} at HOST: [12] fragments?, (running|ended)>"),
    "ended stream": (ended_later, f"<AsyncPredictionStream of {CHAT!r} at HOST: 2 fragments, ended>"),
    "batches": (batches_later, f"<AsyncBatches of {CHAT!r} at HOST: 0 fragments, not started>"),
}


@pytest.mark.parametrize("name", HELD_BY_TASKS)
async def test_the_repr_of_what_an_async_client_returns(server: Emulator, name: str) -> None:
    make, pattern = HELD_BY_TASKS[name]
    async with lms.AsyncClient(server.address, TOKEN) as client:
        assert repr(client) == expected("AsyncClient(api_host='HOST')", server)
        assert re.fullmatch(expected(pattern, server), shown(await make(client)))


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_shows_only_the_settings_that_were_changed(name: str) -> None:
    headers = {"X-Key": TOKEN}
    made = ADAPTERS[name].make(model="m", host="h:1", api_token=TOKEN, headers=headers, ttl=5, timeout=None)
    text = shown(made)
    assert text.startswith(f"{name}(")
    assert {"model='m'", "host='h:1'", "ttl=5.0"} <= set(text[len(name) + 1 : -1].split(", "))
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
