"""Invalid arguments: each is rejected with its name and its value before anything is sent."""

import io
import math
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.client.predictions.plan import PredictionParameters, PromptParameters
from lmstudio_integrations.emulator import Emulator
from tests.client.public_calls import of_this_copy
from tests.client.transport.test_connecting import TOKEN
from tests.support.embedding import embed_texts
from tools.leaves import has_leaf

HANDLE = lms.FileHandle(name="a.txt", identifier="1", size_bytes=1, file_type="text/plain")

NOT_EXPLICIT = ".* load_policy='explicit'"

HUGE = 10**400
"""Larger than a `float` can be."""

EMBED = EmbeddingRequest(["Hi"], "pass", "chunk_size")

CONSTRUCTING: list[tuple[str, dict[str, Any]]] = [
    ("host .* 5", {"api_host": 5}),
    ("host .* \\[\\]", {"api_host": []}),
    ("host 'h:0'", {"api_host": "h:0"}),
    ("api_token .* int", {"api_token": 5}),
    ("headers .* str", {"headers": "X-Key: 1"}),
    ("'X-Key'", {"headers": {"X-Key": 1}}),
    ("'X-Key'", {"headers": {"X-Key": "a\r\nb"}}),
    ("'X Key'", {"headers": {"X Key": "a"}}),
    ("keep_idle .* -1", {"keep_idle": -1}),
    ("max_message_bytes .* 0", {"max_message_bytes": 0}),
    ("total_timeout .* '5'", {"total_timeout": "5"}),
    ("idle_timeout .* nan", {"idle_timeout": float("nan")}),
    ("idle_timeout .* -1", {"idle_timeout": -1}),
    ("connect_timeout .* -1", {"connect_timeout": -1}),
    ("total_timeout must be a positive number of seconds.* got 1000", {"total_timeout": HUGE}),
    ("keep_idle must be 0 or a positive number of seconds.* got 1000", {"keep_idle": HUGE}),
    ("max_message_bytes must be between 1 and .* got 1000", {"max_message_bytes": HUGE}),
]

CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("model .* 5", lambda client: client.llm.model(5)),
    ("model_key .* None", lambda client: client.llm.load_new_instance(None)),
    ("model is empty", lambda client: client.llm.model("  ")),
    ("needs a model", lambda client: client.llm.model(load_policy="new_instance")),
    ("instance_identifier is empty", lambda client: client.llm.load_new_instance("chatty", "")),
    ("ttl must be a positive number of seconds.* got 1000", lambda client: client.llm.model("chatty", ttl=HUGE)),
    ("ttl must be at most 9,007,199,254,740 seconds.* got 1e", lambda client: client.llm.model("chatty", ttl=1e308)),
    ("context_length=1000.* must be an integer", lambda client: client.llm.model(config={"context_length": HUGE})),
    ("limit must be between .* got 1000", lambda client: client.files.retrieve("x", [HANDLE], limit=HUGE)),
    ("ttl .* '5'", lambda client: client.llm.model("chatty", ttl="5")),
    ("ttl .* 0", lambda client: client.llm.model("chatty", ttl=0)),
    ("ttl .* nan", lambda client: client.llm.model("chatty", ttl=float("nan"))),
    ("ttl .* True", lambda client: client.llm.model("chatty", ttl=True)),
    (f"ttl=inf {NOT_EXPLICIT}", lambda client: client.llm.model("chatty", ttl=math.inf)),
    (
        f"ttl=inf {NOT_EXPLICIT}",
        lambda client: client.llm.model("chatty", ttl=math.inf, load_policy="require_loaded"),
    ),
    ("load_policy .* 'sometimes'", lambda client: client.llm.model("chatty", load_policy="sometimes")),
    ("on_config_mismatch .* 'shout'", lambda client: client.llm.model("chatty", on_config_mismatch="shout")),
    (
        "show_progress must be True, False or 'auto'; got 1",
        lambda client: client.llm.model("chatty", show_progress=1),
    ),
    ("on_load_progress .* 5", lambda client: client.llm.model("chatty", on_load_progress=5)),
    ("on_load_progress or on_progress", lambda client: client.llm.model(on_load_progress=print, on_progress=print)),
    ("config .* 3", lambda client: client.llm.model("chatty", config=3)),
    ("model_identifier is empty", lambda client: client.llm.unload("")),
    ("model_key .* 5", lambda client: client.llm.estimate_usage(5)),
    ("namespace .* 'vlm'", lambda client: client.list_loaded_models("vlm")),
    ("a file is .* 5", lambda client: client.files.prepare_image(5)),
    ("a file is .*StringIO", lambda client: client.files.prepare_file(io.StringIO("text"))),
    ("name .* 5", lambda client: client.files.prepare_file(b"content", 5)),
    ("must be prepared first.* 5", lambda client: client.files.parse_document(5)),
    ("on_progress .* 5", lambda client: client.files.parse_document(HANDLE, on_progress=5)),
    ("query .* 5", lambda client: client.files.retrieve(5, [HANDLE])),
    ("files .* 5", lambda client: client.files.retrieve("x", 5)),
    ("must be prepared first.* 'a.txt'", lambda client: client.files.retrieve("x", ["a.txt"])),
    ("query is empty", lambda client: client.files.retrieve(" ", [HANDLE])),
    ("at least one file", lambda client: client.files.retrieve("x", [])),
    ("limit .* 'x'", lambda client: client.files.retrieve("x", [HANDLE], limit="x")),
    ("did you mean 'limit'", lambda client: client.files.retrieve("x", [HANDLE], limt=1)),
    ("limit .* 26", lambda client: client.repository.search_models(limit=26)),
    ("input must be .*, got 5", lambda client: client.embedding.lazy_model("vectors").embed(5)),
    ("input must be .*, got b'ab'", lambda client: client.embedding.lazy_model("vectors").embed(b"ab")),
    ("input must be .*, got None", lambda client: client.embedding.lazy_model("vectors").embed(["a", None])),
    ("search_term .* 5", lambda client: client.repository.search_models(5)),
    ("max_concurrency .* 0", lambda client: embed_texts(client.embedding.lazy_model(), EMBED, max_concurrency=0)),
    ("compatibility_types .* 5", lambda client: client.repository.search_models(compatibility_types=[5])),
]

SWITCHES: list[tuple[Callable[..., Any], Any]] = [
    (lambda model, **given: model.respond("Hi", **given), PredictionParameters),
    (lambda model, **given: model.respond_stream("Hi", **given), PredictionParameters),
    (lambda model, **given: model.complete("Hi", **given), PredictionParameters),
    (lambda model, **given: model.apply_prompt_template("Hi", **given), PromptParameters),
]
if has_leaf("tool_loop"):
    from lmstudio_integrations.client.predictions.tool_loop.act import ActParameters

    SWITCHES.append((lambda model, **given: model.act("Hi", [_tool], **given), ActParameters))
"""Calls with switches, and their parameters."""

OF_STRUCTURED = "structured needs a type of gbnf, json, none; got"

ON_A_MODEL: list[tuple[str, Callable[[Any], Any]]] = [
    ("prompt .* 5", lambda model: model.complete(5)),
    ("history .* None", lambda model: model.respond(None)),
    ("empty", lambda model: model.respond("  \n")),
    ("empty", lambda model: model.respond([])),
    ("empty", lambda model: model.respond(lms.Chat(""))),
    ("preset .* 5", lambda model: model.respond("Hi", preset=5)),
    ("on_message .* 5", lambda model: model.respond("Hi", on_message=5)),
    ("input must be a string or a list of strings, got 5", lambda model: model.tokenize(5)),
    ("input must be a string or a list of strings, got None", lambda model: model.tokenize(None)),
    ("input must be a string or a list of strings, got b'x'", lambda model: model.count_tokens(b"x")),
    ("tools .* 5", lambda model: model.apply_prompt_template("Hi", tools=5)),
    ("tools .* 5", lambda model: model.apply_prompt_template("Hi", tools=[5])),
    ("tools .* 5", lambda model: model.act("Hi", 5)),
    ("must be a function", lambda model: model.act("Hi", [5])),
    ("duplicate", lambda model: model.act("Hi", [_tool, _tool])),
    ("max_prediction_rounds", lambda model: model.act("Hi", [_tool], max_prediction_rounds=0)),
    ("max_parallel_tool_calls", lambda model: model.act("Hi", [_tool], max_parallel_tool_calls=0)),
    ("max_repeated_tool_calls", lambda model: model.act("Hi", [_tool], max_repeated_tool_calls=1)),
    ("on_mesage", lambda model: model.act("Hi", [_tool], on_mesage=None)),
    ("no structured output", lambda model: model.act("Hi", [_tool], config={"structured": {"type": "json"}})),
    ("max_retries .* -1000", lambda model: model.with_retries(-HUGE)),
    ("max_retries must be 0 or more", lambda model: model.with_retries(-1)),
    ("max_retries must be 0 or more", lambda model: model.with_retries(True)),
    ("max_retries must be 0 or more", lambda model: model.with_retries(None)),
    ("waiting_time", lambda model: model.with_timeouts(waiting_time=5)),
    ("seed=1000.* must be an integer", lambda model: model.respond("Hi", config={"seed": HUGE})),
    ("seed=Decimal.* must be an integer", lambda model: model.respond("Hi", config={"seed": Decimal("1e999")})),
    ("temperature=Decimal.* finite", lambda model: model.respond("Hi", config={"temperature": Decimal("1e999")})),
    ("max_prediction_rounds .* 'a'", lambda model: model.act("Hi", [_tool], max_prediction_rounds="a")),
    ("config .* 3", lambda model: model.respond("Hi", config=3)),
    ("did you mean 'config'", lambda model: model.respond("Hi", confg={})),
    ("did you mean 'max_tokens'", lambda model: model.respond("Hi", config={"maxToken": 1})),
    (OF_STRUCTURED, lambda model: model.respond("Hi", config={"structured": {}})),
    (OF_STRUCTURED, lambda model: model.respond("Hi", config={"structured": {"type": "yaml"}})),
    ("config .* 3", lambda model: model.act("Hi", [_tool], config=3)),
    ("reasoning_parsing is nested more", lambda model: model.respond("Hi", config={"reasoning_parsing": _deep()})),
    ("nested too deeply", lambda model: model.respond("Hi", response_format={"properties": _deep()})),
    ('stop_strings=.* write \\["…"\\]', lambda model: model.respond("Hi", config={"stop_strings": "a"})),
    ("bias of 5 must be a number", lambda model: model.respond("Hi", config={"logit_bias": {5: HUGE}})),
    *(
        (f"{name} must be True or False; got 'no'", partial(call, **{name: "no"}))
        for call, parameters in SWITCHES
        for name, annotation in parameters.__annotations__.items()
        if annotation is bool
    ),
    ("query must be a string; got 5", lambda model: model.rerank(5, ["a"])),
    ("query is empty", lambda model: model.rerank(" ", ["a"])),
    ("texts must be a list", lambda model: model.rerank("Hi", "a")),
    ("text 1 must be a string; got 5", lambda model: model.rerank("Hi", ["a", 5])),
    ("top_n must be at least 1, or None; got 0", lambda model: model.rerank("Hi", ["a"], top_n=0)),
    ("max_concurrency must be at least 1", lambda model: model.rerank("Hi", ["a"], max_concurrency=0.5)),
    ("instruction is empty", lambda model: model.rerank("Hi", ["a"], instruction="")),
    ("must be a RerankTemplate or a prompt; got 5", lambda model: model.rerank("Hi", ["a"], template=5)),
    ("template is empty", lambda model: model.rerank("Hi", ["a"], template=" ")),
    ("errors must be 'raise' or 'mark'; got 'ignore'", lambda model: model.rerank("Hi", ["a"], errors="ignore")),
    ("unknown argument 'top_k'", lambda model: model.rerank("Hi", ["a"], top_k=3)),
    ("on_progress must be a function, or None", lambda model: model.rerank("Hi", ["a"], on_progress=5)),
    ("handle_invalid_tool_request .* 5", lambda model: model.act("Hi", [_tool], handle_invalid_tool_request=5)),
]


def _deep() -> Any:
    value: Any = {}
    for _ in range(100_000):
        value = {"a": value}
    return value


def _tool() -> None:
    """Do nothing."""


async def _async_callback(*_arguments: object) -> None:
    """Awaited by the async client only, and only where predictions call it."""


@pytest.mark.parametrize(("text", "arguments"), CONSTRUCTING)
def test_invalid_arguments_of_a_client_are_rejected(text: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        lms.Client(**arguments)


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    """A client whose server is not there: what is not rejected is another error."""
    async with lms.AsyncClient("127.0.0.1:1") as made:
        yield made


@pytest.mark.parametrize(("text", "call"), of_this_copy(CALLS))
async def test_invalid_arguments_of_a_client_call_are_rejected(client: Any, text: str, call: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        await call(client)


@pytest.mark.parametrize(("text", "call"), of_this_copy(ON_A_MODEL))
async def test_invalid_arguments_of_a_model_call_are_rejected(client: Any, text: str, call: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=text):
        await call(client.llm.lazy_model("chatty"))


NEVER_AWAITED: list[Callable[[Any], Any]] = [
    lambda client: client.llm.model("chatty", on_load_progress=_async_callback),
    lambda client: client.files.parse_document(HANDLE, on_progress=_async_callback),
]

SYNC_ONLY: list[Callable[[Any], Any]] = [
    lambda model: model.respond("Hi", on_message=_async_callback),
    lambda model: model.complete_stream("Hi", on_prediction_fragment=_async_callback),
    lambda model: model.act("Hi", [_tool], on_round_start=_async_callback),
    lambda model: model.act("Hi", [_tool], handle_invalid_tool_request=_async_callback),
]


@pytest.mark.parametrize("call", [call for (call,) in of_this_copy((each,) for each in NEVER_AWAITED)])
async def test_an_async_callback_is_rejected_where_no_client_awaits_it(client: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(
        lms.LMStudioValueError, match="must be a function that is not async, or None; got <function _as"
    ):
        await call(client)


@pytest.mark.parametrize("call", [call for (call,) in of_this_copy((each,) for each in SYNC_ONLY)])
def test_the_sync_client_rejects_async_callbacks_before_it_sends_anything(call: Callable[[Any], Any]) -> None:
    model = lms.Client("127.0.0.1:1").llm.lazy_model("chatty")
    with pytest.raises(lms.LMStudioValueError, match=r"must be a function that is not async.* _async_callback"):
        call(model)


def test_the_sync_client_rejects_what_turns_out_to_be_an_async_callback(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        model = client.llm.lazy_model("chatty")
        with pytest.raises(
            lms.LMStudioValueError, match="on_message must be a function that is not async; AsyncClient"
        ):
            model.respond("Hi", on_message=lambda message: _async_callback(message))  # noqa: PLW0108 - what is tested


async def test_an_invalid_path_raises_an_os_error(client: Any) -> None:
    with pytest.raises(lms.LMStudioOSError, match=r"null (byte|character)"):
        await client.files.prepare_file("a\0b")


@pytest.mark.parametrize("host", ["", "host:port", 5])
async def test_an_invalid_address_is_not_a_valid_host(make_client: Callable[..., Any], host: Any) -> None:
    assert not await make_client("localhost:1").is_valid_api_host(host)


async def test_a_token_may_be_a_pydantic_secret(make_client: Callable[..., Any]) -> None:
    with Emulator([{"key": "chatty", "engine": "scripted"}], tokens=[TOKEN]) as server:
        async with make_client(server.address, SecretStr(TOKEN)) as client:
            assert await client.llm.list_loaded() == []


@pytest.mark.parametrize("value", ["x", -1])
def test_an_invalid_default_timeout_is_rejected(value: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=f"idle_timeout .* {value!r}"):
        lms.set_sync_api_timeout(value)


def test_two_timeouts_in_one_are_told_apart() -> None:
    with pytest.raises(lms.LMStudioValueError, match="write connect_timeout=3, idle_timeout=5"):
        lms.set_sync_api_timeout((3, 5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_invalid_address_of_the_default_client_is_rejected() -> None:
    reset_default_client()
    with pytest.raises(lms.LMStudioValueError, match="ftp://"):
        lms.configure_default_client("ftp://host")


def test_images_must_be_a_list() -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"images .* 5"):
        lms.Chat().add_user_message("Look", images=5)  # type: ignore[arg-type]  # what is tested


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "error"), [(250, lms.LMStudioServerError), (100_000, lms.LMStudioValueError)])
async def test_an_argument_that_is_nested_too_deeply_fails_its_call_at_once(
    server: Emulator, levels: int, error: type[Exception]
) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    config: Any = {"raw": {"fields": [{"key": "x", "value": value}]}}
    async with lms.AsyncClient(server.address) as client:
        with pytest.raises(error, match="nested"):
            await client.llm.lazy_model("chatty").respond("Hi", config=config)
