"""What everything that a user holds shows of itself: one short line that says what it is, and no secret."""

from inspect import isawaitable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult, PredictionRoundResult
from tests.support.adapters import ADAPTERS
from tests.support.leaks import TOKEN, shows_token
from tests.support.served import served

CHAT, EMBEDDER = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
MODELS = (CHAT, EMBEDDER, {"key": "elsewhere", "display_name": "Elsewhere", "downloaded": False})
LONGEST = 300

server = served(MODELS, load=[CHAT, EMBEDDER], tokens=[TOKEN])


def shown(held: object) -> str:
    """Return what an object shows: a short line without an address in memory, and without the token."""
    text = repr(held)
    assert "\n" not in text
    assert len(text) <= LONGEST
    assert " object at 0x" not in text
    assert not shows_token(text)
    return text


@pytest.mark.leaf
def test_the_repr_of_what_a_client_returns(server: Emulator) -> None:
    host = server.address
    with lms.Client(host, TOKEN, headers={"X-Key": TOKEN}) as client:
        (found,) = client.repository.search_models("elsewhere")
        assert {
            "client": shown(client),
            "namespace": shown(client.llm),
            "model": shown(client.llm.model(CHAT)),
            "lazy model": shown(client.llm.lazy_model()),
            "downloaded model": shown(client.llm.list_downloaded()[0]),
            "found model": shown(found),
            "download option": shown(found.get_download_options()[0]),
        } == {
            "client": f"Client(api_host='{host}')",
            "namespace": f"<LlmNamespace at {host}>",
            "model": f"LLM(identifier={CHAT!r})",
            "lazy model": "LLM(identifier='any loaded model')",
            "downloaded model": f"DownloadedLlm(model_key={CHAT!r})",
            "found model": "AvailableModel(name='Elsewhere')",
            "download option": "DownloadOption(name='Elsewhere', size_bytes=1000000)",
        }
    assert shown(lms.Client().llm) == "<LlmNamespace at this machine>"


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], "0 fragments, not started"),
        (["start"], "0 fragments, running"),
        (["wait_for_result"], "2 fragments, ended"),
        (["start", "aclose"], "0 fragments, closed"),
        (["cancel"], "0 fragments, cancelled"),
    ],
)
async def test_the_repr_of_a_stream_has_its_state(server: Emulator, steps: list[str], state: str) -> None:
    async with lms.AsyncClient(server.address, TOKEN) as client:
        stream: Any = (await client.llm.model(CHAT)).respond_stream("Hi", config={"maxTokens": 2})
        for step in steps:
            result = getattr(stream, step)()
            if isawaitable(result):
                await result
        assert shown(stream) == f"<AsyncPredictionStream of {CHAT!r} at {server.address}: {state}>"
        assert shown(stream.batches()).startswith(f"<AsyncBatches of {CHAT!r} at {server.address}: ")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_shows_only_the_settings_that_were_changed(name: str) -> None:
    headers = {"X-Key": TOKEN}
    adapter = ADAPTERS[name]
    made = adapter.make(
        model="m", host="h:1", api_token=TOKEN, headers=headers, ttl=5, timeout=None, load_policy="require_loaded"
    )
    text = shown(made)
    assert text.startswith(f"{adapter.name}(")
    assert {"model='m'", "host='h:1'", "ttl=5.0", "load_policy='require_loaded'"} <= set(
        text[len(adapter.name) + 1 : -1].split(", ")
    )
    assert not [absent for absent in ("timeout", "headers", "callback", "prompt") if absent in text]
    assert shown(str(made))
    made.timeouts = {"idle_timeout": 7.0}
    assert "timeouts={'idle_timeout': 7.0}" in shown(made)


def test_results_configs_and_infos_show_what_is_set_and_the_beginning_of_a_long_response(server: Emulator) -> None:
    end = PredictionEnd({"stopReason": "eosFound"}, {}, {}, {})
    assert shown(PredictionResult("a\nb", "", end)) == "PredictionResult(content='a\\nb', stop_reason='eosFound')"
    assert shown(PredictionRoundResult("a" * 5_000, "", end)).startswith("PredictionRoundResult(content='aaaa")
    assert shown(lms.LlmPredictionConfig(temperature=0.5)) == "LlmPredictionConfig(temperature=0.5)"
    assert shown(server) == f"<Emulator at {server.address}: 3 models, 2 loaded>"
    assert shown(lms.LlmLoadModelConfig(context_length=None)) == "LlmLoadModelConfig(context_length=None)"
    with lms.Client(server.address, TOKEN) as client:
        result = client.llm.model(CHAT).respond("Hi", config={"maxTokens": 2})
        assert "=None" not in shown(result.stats)
        assert shown(client.files.prepare_file(TOKEN.encode(), name="a.txt")).startswith("FileHandle(")
