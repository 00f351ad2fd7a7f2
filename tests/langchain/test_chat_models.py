"""`ChatLMStudio` on a scripted server."""

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate

from lmstudio_integrations.emulator.catalog import Catalog, Preset
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConnectionLostError,
    LMStudioContextOverflowError,
    LMStudioPresetNotFoundError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from tests.langchain.conftest import CHAT, EMBEDDING, MODELS, OTHER, WAYS, Invoke, Server
from tests.pauses import replace_pauses

COUNTED = " ".join(str(n) for n in range(30))


# Responses ------------------------------------------------------------------------------------------------------------


def test_a_response_has_text_usage_and_metadata(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(), "count please")
    assert message.content == COUNTED
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 31
    assert message.usage_metadata["input_tokens"] > 0
    metadata = message.response_metadata
    assert metadata["model_name"] == CHAT
    assert metadata["model_provider"] == "lmstudio"
    assert metadata["instance_identifier"] == CHAT
    assert metadata["finish_reason"] == "stop"
    assert metadata["stop_reason"] == "eosFound"
    assert metadata["context_length"] == 4096
    assert metadata["tokens_per_second"] > 0
    assert metadata["time_to_first_token_sec"] >= 0


def test_a_stream_reports_the_same_as_a_plain_call(server: Server) -> None:
    """Usage and metadata are the same on every call path; tracers attribute usage by `ls_provider`."""
    llm = server.chat()
    llm.invoke("count")
    plain, streamed = llm.invoke("count"), WAYS["stream"](llm, "count")
    assert plain.usage_metadata == streamed.usage_metadata
    assert plain.response_metadata.keys() == streamed.response_metadata.keys()
    assert plain.response_metadata["model_provider"] == llm._get_ls_params().get("ls_provider")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_generating_for_several_conversations_sums_their_tokens(server: Server, asynchronous: bool) -> None:
    llm = server.chat()

    def generate(*questions: str, **given: Any) -> tuple[LLMResult, list[AIMessage]]:
        conversations: list[Any] = [[HumanMessage(question)] for question in questions]
        result = (
            asyncio.run(llm.agenerate(conversations, **given)) if asynchronous else llm.generate(conversations, **given)
        )
        return result, [generations[0].message for generations in result.generations]  # type: ignore[union-attr,misc]

    result, messages = generate("count", "think", "count")
    assert result.llm_output is not None
    assert result.llm_output["model_name"] == CHAT
    usages = [
        message.usage_metadata or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0) for message in messages
    ]
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": sum(usage["input_tokens"] for usage in usages),
        "completion_tokens": sum(usage["output_tokens"] for usage in usages),
        "total_tokens": sum(usage["total_tokens"] for usage in usages),
    }
    assert result.llm_output["token_usage"]["prompt_tokens"] > 0
    assert messages[0].response_metadata["token_usage"]["completion_tokens"] == 31
    assert generate("count", stream=True)[0].llm_output == {"token_usage": {}, "model_name": CHAT}


def test_a_callback_gets_model_and_token_counts(server: Server) -> None:
    """`OpenAICallbackHandler` and others read `llm_output`."""

    class Handler(BaseCallbackHandler):
        output: Any = None

        def on_llm_end(self, response: LLMResult, **_: Any) -> None:
            self.output = response.llm_output

    handler = Handler()
    server.chat().invoke("count", {"callbacks": [handler]})
    assert handler.output["model_name"] == CHAT
    assert handler.output["token_usage"]["completion_tokens"] == 31


def test_chunks_of_a_stream_share_the_identifier_of_the_run(server: Server) -> None:
    chunks = list(server.chat(max_tokens=3).stream("count"))
    (identifier,) = {chunk.id for chunk in chunks}
    assert str(identifier).startswith("lc_run-")
    assert all(isinstance(chunk.content, str) for chunk in chunks)


def test_the_call_that_loads_the_model_has_a_complete_response(server: Server, generate: Invoke) -> None:
    assert not server.loaded()
    assert generate(server.chat(), "count").content == COUNTED


def test_a_chain_works(server: Server) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")]) | server.chat()
    assert chain.invoke({"question": "count"}).content == COUNTED
    assert server.last_request.history is not None
    assert [message.role for message in server.last_request.history.messages] == ["system", "user"]


def test_reasoning_is_separate(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(), "think")
    assert message.text.strip() == "Done."
    assert message.additional_kwargs["reasoning_content"].strip() == "Let me see."
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


def test_a_response_of_reasoning_alone_is_logged(
    server: Server, generate: Invoke, caplog: pytest.LogCaptureFixture
) -> None:
    message = generate(server.chat(max_tokens=3), "think on")
    assert (message.text, message.response_metadata["finish_reason"]) == ("", "length")
    assert caplog.text.count(f"the response of {CHAT!r} is all reasoning") == 1
    generate(server.chat(), "think on")
    assert caplog.text.count("all reasoning") == 1


async def test_a_response_of_reasoning_alone_is_logged_in_batches(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    llm, questions = server.chat(max_tokens=3), ["think on", "count", "think on"]
    llm.batch(list(questions))
    await llm.abatch(list(questions))
    assert caplog.text.count("all reasoning") == 4


def test_v1_output_is_blocks(server: Server, generate: Invoke) -> None:
    message = generate(server.chat(output_version="v1"), "think")
    assert isinstance(message.content, list)
    assert [block["type"] for block in message.content if isinstance(block, dict)] == ["reasoning", "text"]


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings_reach_the_model(server: Server, generate: Invoke) -> None:
    llm = server.chat(
        temperature=0.5,
        max_tokens=5,
        top_k=3,
        top_p=0.5,
        min_p=False,
        repeat_penalty=1.2,
        presence_penalty=0.1,
        stop=["9"],
        seed=4,
        context_overflow_policy="stopAtLimit",
        enable_thinking=False,
        reasoning_budget=9,
        extra={"llm.prediction.llama.cpuThreads": 2},
    )
    message = generate(llm, "count")
    assert message.content == "0 1 2 3 4"
    assert message.response_metadata["finish_reason"] == "length"
    config = server.last_request.config
    assert (config.temperature, config.max_tokens, config.top_k_sampling, config.top_p_sampling) == (0.5, 5, 3, 0.5)
    assert (config.repeat_penalty, config.presence_penalty, config.stop_strings, config.seed) == (1.2, 0.1, ["9"], 4)
    assert config.context_overflow_policy == "stopAtLimit"
    assert (config.enable_thinking, config.reasoning_budget, config.cpu_threads) == (False, 9, 2)
    assert not config.min_p_sampling


def test_log_probabilities_come_when_requested(server: Server, generate: Invoke) -> None:
    assert "logprobs" not in generate(server.chat(), "count").response_metadata
    reported = generate(server.chat(logprobs=True, max_tokens=2), "count").response_metadata["logprobs"]["content"]
    assert [token["token"] for token in reported] == ["0", " 1"]
    assert all(token["logprob"] <= 0 and token["top_logprobs"] == [] for token in reported)
    reported = generate(server.chat(max_tokens=2), "count", top_logprobs=2).response_metadata["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in reported] == [2, 2]


def test_without_a_ttl_none_is_sent_and_the_servers_own_default_stays(server: Server) -> None:
    by_default, with_ttl = server.chat(), server.chat(ttl=1)
    assert by_default._resolve_call({}).model_spec.ttl is None
    by_default.invoke("count")
    (instance,) = server.loaded()
    assert instance.ttl_ms != 1_000
    with_ttl.invoke("count")
    assert server.loaded()[0].ttl_ms == instance.ttl_ms


def test_a_preset_ranks_below_what_is_set(generate: Invoke) -> None:
    preset = Preset(
        identifier="mine",
        fields={"llm.prediction.temperature": 0.9, "llm.prediction.topKSampling": 7},
    )
    with Server(catalog=Catalog(models=tuple(MODELS), presets=(preset,)), models=None) as server:
        generate(server.chat(preset="mine", temperature=0.1), "count")
        assert (server.last_request.config.temperature, server.last_request.config.top_k_sampling) == (0.1, 7)
        with pytest.raises(LMStudioPresetNotFoundError):
            generate(server.chat(preset="yours"), "count")


def test_a_call_ranks_above_bind_and_bind_above_the_field(server: Server) -> None:
    llm = server.chat(temperature=0.1, stop=["5"])
    llm.invoke("count")
    assert server.last_request.config.temperature == 0.1
    assert server.last_request.config.stop_strings == ["5"]
    bound = llm.bind(temperature=0.2, stop=["6"])
    bound.invoke("count")
    assert server.last_request.config.temperature == 0.2
    assert server.last_request.config.stop_strings == ["6"]
    bound.invoke("count", temperature=0.3, stop=["7"])
    assert server.last_request.config.temperature == 0.3
    assert server.last_request.config.stop_strings == ["7"]


def test_one_stop_text_needs_no_list(server: Server, generate: Invoke) -> None:
    assert generate(server.chat(stop=" 5"), "count").text == "0 1 2 3 4"
    assert generate(server.chat(), "count", stop=" 4").text == "0 1 2 3"
    assert generate(server.chat().bind(stop=" 3"), "count").text == "0 1 2"


def test_none_unsets_and_assignment_after_use_counts(server: Server) -> None:
    llm = server.chat(temperature=0.1)
    assert llm.invoke("count", temperature=None).response_metadata["model_name"] == CHAT
    assert server.last_request.config.temperature != 0.1
    llm.temperature = 0.7
    llm.invoke("count")
    assert server.last_request.config.temperature == 0.7


def test_extra_keys_are_merged(server: Server) -> None:
    llm = server.chat(
        extra={"llm.prediction.llama.cpuThreads": 2, "llm.prediction.seed": {"checked": True, "value": 1}}
    )
    llm.invoke("count", extra={"llm.prediction.llama.cpuThreads": 3})
    assert server.last_request.config.cpu_threads == 3
    assert server.last_request.config.seed == 1


def test_the_model_can_be_changed_by_the_call(server: Server, generate: Invoke) -> None:
    llm = server.chat()
    assert generate(llm, "count", model=OTHER).response_metadata["model_name"] == OTHER
    assert generate(llm.bind(model=OTHER), "count").response_metadata["model_name"] == OTHER
    assert generate(llm, "count").response_metadata["model_name"] == CHAT


def test_no_model_means_any_that_is_loaded(server: Server, generate: Invoke) -> None:
    server.load(OTHER)
    assert generate(server.chat(model=None), "Hello").response_metadata["model_name"] == OTHER


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"num_ctx": 1}, "did you mean 'context_length'"),
        ({"zzz": 1}, "known are"),
        ({"host": "a", "base_url": "b"}, "another name of 'host'"),
        ({"load_config": {"contextLenght": 3}}, "contextLength|context_length"),
        ({"temperature": -1}, "temperature"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_unknown_and_impossible_settings_are_rejected_at_once(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ChatLMStudio(model="m", **given)


def test_unknown_settings_of_a_call_are_rejected_before_anything_is_sent(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioValueError, match="did you mean 'temperature'") as caught:
        generate(server.chat(), "count", temprature=1)
    assert isinstance(caught.value, ModelInvalidRequestError)
    wrong: Any
    for wrong in (2, [1]):
        with pytest.raises(LMStudioValueError, match="n must be 1"):
            generate(server.chat(), "count", n=wrong)
    for wrong in (None, "2", -1, True):
        with pytest.raises(LMStudioValueError, match="max_retries must be 0 or more"):
            generate(server.chat(), "count", max_retries=wrong)
    assert generate(server.chat(), "count", n=1).content == COUNTED
    assert len(server.predictions) == 1


def test_other_adapters_names_of_our_settings_work() -> None:
    llm = ChatLMStudio(model_name="m", base_url="http://localhost:1234/v1", api_key="secret")  # type: ignore[call-arg]
    assert (llm.model, llm.host) == ("m", "http://localhost:1234/v1")
    assert llm.api_token is not None
    assert llm.api_token.get_secret_value() == "secret"


# Loading --------------------------------------------------------------------------------------------------------------


def test_ttl_and_load_config_act_when_the_call_loads(server: Server, generate: Invoke) -> None:
    llm = server.chat(ttl=77, context_length=2048, load_config={"flashAttention": True}, on_config_mismatch="ignore")
    assert generate(llm, "count").response_metadata["context_length"] == 2048
    (instance,) = server.loaded()
    assert instance.ttl_ms == 77_000
    assert instance.context_length == 2048
    assert server.loads[0].config["flashAttention"] is True


def test_load_config_is_merged_by_key(server: Server) -> None:
    llm = server.chat(load_config={"flashAttention": True, "tryMmap": False})
    llm.invoke("count", load_config={"try_mmap": True})
    assert server.loads[0].config == {"flashAttention": True, "tryMmap": True}


def test_the_context_window_of_a_call_ranks_above_the_fields(server: Server) -> None:
    llm = server.chat(context_length=1024)
    llm.invoke("count", load_config={"context_length": 2048})
    assert server.loaded()[0].context_length == 2048
    server.unload(CHAT)
    llm.invoke("count", context_length=512, on_config_mismatch="ignore")
    assert server.loaded()[0].context_length == 512


def test_another_configuration_than_requested_warns_or_raises(server: Server, generate: Invoke) -> None:
    server.load(CHAT)
    with pytest.warns(UserWarning, match="2048"):
        generate(server.chat(context_length=2048), "count")
    with pytest.raises(LMStudioConfigMismatchError, match="2048"):
        generate(server.chat(context_length=2048, on_config_mismatch="raise"), "count")
    assert generate(server.chat(context_length=2048, on_config_mismatch="ignore"), "count").content == COUNTED


def test_progress_is_reported_by_the_caller_of_the_model(
    server: Server, generate: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[float] = []
    read: list[float] = []
    threads: set[int] = set()

    def note(progress: float) -> None:
        loaded.append(progress)
        threads.add(threading.get_ident())

    generate(server.chat(on_load_progress=note, on_prompt_progress=read.append, show_progress=True), "count")
    assert loaded == sorted(set(loaded))
    assert (loaded[0], loaded[-1]) == (0.0, 1.0)
    assert (read[0], read[-1]) == (0.0, 1.0)
    assert threads == {threading.get_ident()}
    assert f"Loading {CHAT}" in capsys.readouterr().err


def test_require_loaded_never_loads(server: Server, generate: Invoke) -> None:
    with pytest.raises(ModelNotFoundError):
        generate(server.chat(load_policy="require_loaded"), "count")
    assert server.loaded() == []


def test_a_model_that_went_away_is_loaded_again(server: Server, generate: Invoke) -> None:
    llm = server.chat()
    generate(llm, "count")
    server.unload(CHAT)
    assert generate(llm, "count").content == COUNTED


# One object, many callers ---------------------------------------------------------------------------------------------


def test_one_object_serves_threads_and_successive_event_loops(server: Server) -> None:
    llm = server.chat()
    responses: list[Any] = []
    barrier = threading.Barrier(3, timeout=5)

    def work() -> None:
        barrier.wait()
        responses.append(llm.invoke("count").content)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    responses.append(asyncio.run(llm.ainvoke("count")).content)
    responses.append(asyncio.run(llm.ainvoke("count")).content)
    for thread in threads:
        thread.join(5)
    assert responses == [COUNTED] * 4


async def test_one_object_serves_the_sync_and_the_async_api_in_one_loop(server: Server) -> None:
    llm = server.chat()
    first, second = await asyncio.gather(llm.ainvoke("count"), asyncio.to_thread(llm.invoke, "count"))
    assert first.content == second.content == COUNTED


def test_closing_a_stream_stops_the_server(server: Server) -> None:
    for chunk in server.chat().stream("for ever"):
        if chunk.content:
            break
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"


async def test_closing_an_async_stream_stops_the_server(server: Server) -> None:
    async for chunk in server.chat().astream("for ever"):
        if chunk.content:
            break
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"


def test_closing_an_async_stream_whose_loop_is_closed_stops_the_server(server: Server) -> None:
    async def begin(llm: ChatLMStudio) -> None:
        async for chunk in llm.astream("for ever"):
            if chunk.content:
                break

    asyncio.run(begin(server.chat()))
    server.wait_for(lambda: server.predictions[0].state == "ended")


async def test_cancelling_the_task_stops_the_server(server: Server) -> None:
    task = asyncio.create_task(server.chat().ainvoke("for ever"))
    await asyncio.to_thread(server.wait_for, lambda: any(each.fragments for each in server.predictions))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].state == "ended")


def test_closing_stops_what_runs_and_the_object_works_again_after_it(server: Server) -> None:
    with server.chat() as llm:
        stream = llm.stream("for ever")
        next(stream)
    with pytest.raises(ModelError):
        list(stream)
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert llm.invoke("count").content == COUNTED


async def test_closing_in_a_loop_works_too(server: Server) -> None:
    async with server.chat() as llm:
        assert (await llm.ainvoke("count")).content == COUNTED
    await llm.aclose()
    assert (await llm.ainvoke("count")).content == COUNTED


# Callbacks ------------------------------------------------------------------------------------------------------------


class Counter(BaseCallbackHandler):
    """Records the callbacks that it receives."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.events: list[str] = []

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.events.append("start")

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.events.append("end")

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        self.events.append("error")


class AsyncCounter(AsyncCallbackHandler):
    """Counts tokens."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(str(token))


@pytest.mark.parametrize(
    ("ways", "settings", "tokens"),
    [
        ("invoke", {}, 0),
        ("ainvoke", {}, 0),
        ("invoke", {"streaming": True}, 4),
        ("ainvoke", {"streaming": True}, 4),
        ("stream", {}, 4),
        ("astream", {}, 4),
        ("v3", {}, 4),
        ("av3", {}, 4),
    ],
)
def test_callbacks_fire_once_on_every_path(server: Server, ways: str, settings: dict[str, Any], tokens: int) -> None:
    """Three words and the last chunk; a non-streaming call reports no tokens."""
    counter = Counter()
    llm = server.chat(max_tokens=3, **settings)
    config: Any = {"callbacks": [counter]}

    async def av3() -> None:
        stream = await llm.astream_events("count", config, version="v3")
        await stream

    match ways:
        case "v3":
            assert llm.stream_events("count", config, version="v3").output.text == "0 1 2"
        case "av3":
            asyncio.run(av3())
        case _:
            WAYS[ways](llm, "count", config=config)
    assert counter.events == ["start", "end"]
    assert len(counter.tokens) == tokens


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_call_may_choose_whether_it_streams(server: Server, way: str) -> None:
    def tokens(llm: Any, **given: Any) -> int:
        counter = Counter()
        WAYS[way](llm, "count", config={"callbacks": [counter]}, **given)
        return len(counter.tokens)

    llm, streaming = server.chat(max_tokens=3), server.chat(max_tokens=3, streaming=True)
    assert [tokens(llm), tokens(llm, streaming=True), tokens(llm.bind(stream=True))] == [0, 4, 4]
    assert [tokens(streaming), tokens(streaming, streaming=False), tokens(streaming, stream=False)] == [4, 0, 0]


async def test_an_async_callback_gets_every_token_of_v3_events(server: Server) -> None:
    counter = AsyncCounter()
    stream = await server.chat(max_tokens=3).astream_events("count", {"callbacks": [counter]}, version="v3")
    assert (await stream).text == "0 1 2"
    assert counter.tokens == ["0", " 1", " 2", ""]


async def test_v2_events_carry_every_token(server: Server) -> None:
    events = [event async for event in server.chat(max_tokens=3).astream_events("count", version="v2")]
    chunks = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert chunks == ["0", " 1", " 2", ""]


def test_streaming_false_forbids_streams(server: Server) -> None:
    chunks = list(server.chat(streaming=False).stream("count"))
    assert [chunk.content for chunk in chunks if chunk.content] == [COUNTED]
    assert [chunk.content for chunk in server.chat(max_tokens=2).stream("count", stream=True)] == ["0", " 1", ""]


# Errors ---------------------------------------------------------------------------------------------------------------


def test_nobody_listening_is_one_clear_error_and_a_retry_may_help(generate: Invoke) -> None:
    with pytest.raises(LMStudioUnreachableError, match=r"127\.0\.0\.1:1") as caught:
        generate(ChatLMStudio(model="m", host="127.0.0.1:1"), "Hello")
    assert isinstance(caught.value, ModelConnectionError)
    assert caught.value.is_retryable


def test_only_a_failed_connection_is_tried_again(
    server: Server, generate: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    replace_pauses(monkeypatch, pauses.append)
    with pytest.raises(LMStudioUnreachableError):
        generate(ChatLMStudio(model="m", host="127.0.0.1:1", max_retries=6), "Hello")
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    with pytest.raises(ModelError, match="gave up"):
        generate(server.chat(max_retries=6), "break")
    assert len(pauses) == 6
    assert len(server.predictions) == 1


def test_an_unknown_model_is_named(server: Server, generate: Invoke) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        generate(server.chat(model="no-such-model"), "Hello")


def test_an_embedding_model_cannot_chat(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioWrongModelKindError, match="embedding"):
        generate(server.chat(model=EMBEDDING), "Hello")


def test_an_empty_list_of_messages_is_rejected(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioValueError, match="empty"):
        generate(server.chat(), [])
    assert generate(server.chat(), "count").content == COUNTED


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_message_is_the_servers_to_handle(server: Server, generate: Invoke, question: str) -> None:
    assert generate(server.chat(), question).content
    assert server.last_request.history is not None
    (message,) = server.last_request.history.to_dict()["messages"]
    assert message["content"] == [{"type": "text", "text": question}]
    assert [message.text != "" for message in server.chat().batch([question])] == [True]


def test_a_failure_in_the_middle_is_raised_and_no_part_passes_for_a_response(server: Server, generate: Invoke) -> None:
    with pytest.raises(ModelError, match="gave up"):
        generate(server.chat(), "break")
    with pytest.raises(LMStudioConnectionLostError):
        generate(server.chat(), "drop")
    assert generate(server.chat(), "count").content == COUNTED


def test_what_came_before_a_failure_has_been_streamed(server: Server) -> None:
    seen: list[str] = []
    with pytest.raises(ModelError):
        seen.extend(str(chunk.content) for chunk in server.chat().stream("break"))
    assert seen[0].startswith("so")


def test_a_prompt_that_does_not_fit_is_a_context_overflow(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioContextOverflowError) as caught:
        generate(server.chat(context_overflow_policy="stopAtLimit"), "word " * 5000)
    assert isinstance(caught.value, ContextOverflowError)
    assert caught.value.limit == 4096


def test_a_stalled_server_raises_an_error_that_names_the_timeout(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioTimeoutError) as caught:
        generate(server.chat(timeout=0.3), "stall")
    assert caught.value.timeout_name == "timeout"
    assert isinstance(caught.value, ModelTimeoutError)
    server.wait_for(lambda: server.predictions[0].state == "ended")


def test_a_schema_that_the_engine_rejects_is_one_typed_error(server: Server, generate: Invoke) -> None:
    rejected = {"type": "object", "properties": {"a": {"type": "nonsense"}}, "required": ["a"]}
    with pytest.raises(LMStudioUnsupportedError, match="schema") as caught:
        generate(server.chat(), "Hello", response_format=rejected)
    assert isinstance(caught.value, ModelInvalidRequestError)


def test_blocks_that_cannot_be_sent_are_rejected(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioValueError, match="audio"):
        generate(server.chat(), [HumanMessage([{"type": "audio", "base64": "x", "mime_type": "audio/wav"}])])
