"""What users of LangChain rely on, and its standard suites (`tests/langchain/test_standard.py`) do not check."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, get_buffer_string
from langchain_core.runnables import ConfigurableField

from lmstudio_integrations.errors import LMStudioServerError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from tests.langchain.conftest import CHAT, COUNTED, OTHER, WAYS, Server
from tests.support.served import served

server = served(make=Server)


@pytest.fixture(scope="module")
def unreachable() -> ChatLMStudio:
    return ChatLMStudio(model=CHAT, host="127.0.0.1:9")


class Recorder(BaseCallbackHandler):
    """Records the calls of the model's callbacks: name, run, arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, UUID, Any, dict[str, Any]]] = []

    def _record(self, name: str, run_id: UUID, args: Any, kwargs: dict[str, Any]) -> None:
        self.calls.append((name, run_id, args, kwargs))

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._record("start", run_id, args, kwargs)

    def on_llm_new_token(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._record("token", run_id, args, kwargs)

    def on_llm_end(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._record("end", run_id, args, kwargs)

    def on_llm_error(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self._record("error", run_id, args, kwargs)

    @property
    def names(self) -> list[str]:
        """The names in order, without repetitions."""
        return list(dict.fromkeys(name for name, *_ in self.calls))


@pytest.mark.parametrize("way", WAYS)
def test_callbacks_get_the_tokens_of_a_stream_and_the_error_of_a_call_in_one_run(server: Server, way: str) -> None:
    recorder = Recorder()
    WAYS[way](server.chat(), "count", config={"callbacks": [recorder]})
    told = [(args, given) for name, _, args, given in recorder.calls if name == "token"]
    tokens = [args[0] if args else given["token"] for args, given in told]
    assert "".join(tokens) == (COUNTED if "stream" in way else "")
    assert recorder.names == ["start", *["token"] * bool(tokens), "end"]
    assert len({run_id for _, run_id, *_ in recorder.calls}) == 1
    failed = Recorder()
    with pytest.raises(LMStudioServerError) as caught:
        WAYS[way](server.chat(), "break", config={"callbacks": [failed]})
    assert failed.names[-1] == "error"
    assert failed.calls[-1][2] == (caught.value,)


@pytest.mark.parametrize("kind", [ChatLMStudio, LMStudioLLM])
async def test_events_report_the_start_each_chunk_and_the_end_in_one_run(server: Server, kind: Any) -> None:
    model = kind(model=CHAT, host=server.address)
    events: list[Any] = [event async for event in model.astream_events("count", version="v2")]
    names = list(dict.fromkeys(event["event"].rpartition("_")[2] for event in events))
    assert names == ["start", "stream", "end"]
    assert len({event["run_id"] for event in events}) == 1
    chunks = [event["data"]["chunk"] for event in events if event["event"].endswith("_stream")]
    assert "".join(getattr(chunk, "text", chunk) for chunk in chunks) == COUNTED


@pytest.mark.parametrize(
    ("settings", "given", "traced"),
    [
        ({"max_tokens": 9}, {"stop": ["x"]}, {"ls_model_name": CHAT, "ls_temperature": 0.25, "ls_stop": ["x"]}),
        ({"stop": ["y"]}, {"model": OTHER, "temperature": 0.5}, {"ls_model_name": OTHER, "ls_temperature": 0.5}),
        ({}, {"model_name": OTHER}, {"ls_model_name": OTHER}),
    ],
)
def test_a_trace_has_the_provider_of_the_response_and_the_settings_of_the_call(
    server: Server, settings: dict[str, Any], given: dict[str, Any], traced: dict[str, Any]
) -> None:
    recorder = Recorder()
    llm = server.chat(temperature=0.25, **settings)
    message = llm.invoke("count", {"callbacks": [recorder]}, **given)
    metadata = recorder.calls[0][3]["metadata"]
    expected = {"ls_provider": message.response_metadata["model_provider"], "ls_model_type": "chat", **traced}
    expected |= {f"ls_{name}": value for name, value in settings.items()}
    assert {name: metadata.get(name) for name in expected} == expected
    started = recorder.calls[0][3]
    sent = settings.get("stop") or given.get("stop")
    assert (started["invocation_params"]["stop"], metadata.get("ls_stop")) == (sent, sent)


@pytest.mark.parametrize("way", WAYS)
def test_tracers_find_the_finish_reason_and_the_usage_beside_the_message(server: Server, way: str) -> None:
    recorder = Recorder()
    WAYS[way](server.chat(), "think", config={"callbacks": [recorder]})
    ((result,),) = [args for name, _, args, _ in recorder.calls if name == "end"]
    ((generation,),) = result.generations
    metadata = generation.message.response_metadata
    assert generation.generation_info == {"finish_reason": "stop", "model_name": CHAT, "model_provider": "lmstudio"}
    assert {name: metadata[name] for name in generation.generation_info} == generation.generation_info
    usage = metadata["token_usage"]
    assert usage["completion_tokens_details"] == {
        "reasoning_tokens": generation.message.usage_metadata["output_token_details"]["reasoning"]
    }
    if result.llm_output:
        assert result.llm_output == {"token_usage": usage, "model_name": CHAT, "model_provider": "lmstudio"}


def test_the_tags_and_metadata_of_a_config_reach_the_callbacks(server: Server) -> None:
    recorder = Recorder()
    server.chat().with_config(tags=["a-tag"], metadata={"a": "b"}, callbacks=[recorder]).invoke("count")
    started = recorder.calls[0][3]
    assert "a-tag" in started["tags"]
    assert started["metadata"]["a"] == "b"


def test_a_setting_can_be_made_configurable(server: Server) -> None:
    configurable = server.chat(temperature=0.25).configurable_fields(temperature=ConfigurableField(id="heat"))
    configurable.with_config(configurable={"heat": 0.75}).invoke("count")
    assert server.last_request.config.temperature == 0.75
    configurable.invoke("count")
    assert server.last_request.config.temperature == 0.25


@pytest.mark.parametrize("way", WAYS)
def test_another_model_stands_in_for_one_whose_server_is_not_reachable(
    server: Server, unreachable: ChatLMStudio, way: str
) -> None:
    assert WAYS[way](unreachable.with_fallbacks([server.chat()]), "count").text == COUNTED


def test_a_failed_call_can_be_tried_again_and_then_raises_its_error(server: Server) -> None:
    before = len(server.predictions)
    retrying = server.chat(max_retries=0).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    with pytest.raises(LMStudioServerError, match="the engine gave up"):
        retrying.invoke("break")
    assert len(server.predictions) == before + 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_that_has_begun_is_not_tried_again(server: Server, is_async: bool) -> None:
    retrying = server.chat().with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    texts: list[str] = []

    async def read() -> None:
        async for chunk in retrying.astream("break"):
            texts.append(chunk.text)  # noqa: PERF401 - keeps what came before the error

    before = len(server.predictions)
    with pytest.raises(LMStudioServerError, match="the engine gave up"):
        asyncio.run(read()) if is_async else texts.extend(chunk.text for chunk in retrying.stream("break"))
    assert len(server.predictions) == before + 1
    assert "".join(texts).strip() == "so far"


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("way", WAYS)
def test_what_titles_and_summaries_are_made_of_has_no_reasoning(server: Server, way: str, version: str) -> None:
    message = WAYS[way](server.chat(output_version=version), "think")
    assert get_buffer_string([HumanMessage("think"), message]) == "Human: think\nAI: Done."
