"""Plays what a real server said to this package, and compares what it makes of it with what the row expects."""

import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

import lmstudio_integrations as lms
from lmstudio_integrations.errors import LMStudioError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Channel, Namespace
from lmstudio_integrations.protocol.errors import OVERFLOW, to_exception
from lmstudio_integrations.protocol.exchange import Exchange, exchange_type
from lmstudio_integrations.protocol.session import ClientSession
from lmstudio_integrations.types.config import LlmLoadModelConfig, LlmPredictionConfig
from lmstudio_integrations.types.machines import LinkStatus
from lmstudio_integrations.types.models import INFO_TYPES, INSTANCE_INFO_TYPES, read_info
from lmstudio_integrations.types.results import LlmPredictionStats
from tests.client.fake import Socket, authenticate, fake_server, receive, send
from tests.client.prediction_frames import END, INFO
from tests.protocol.pair import RecordingReceiver
from tools.evidence.rows import Row

Player = Callable[[Row], Awaitable[None]]


async def play(row: Row) -> None:
    """Play a row.

    Raises:
        AssertionError: If this package makes something else of it than the row expects; with a policy, if it does not.
    """
    with pytest.raises(AssertionError) if row.policy else contextlib.nullcontext():
        await PLAYERS[row.kind](row)


# Errors ---------------------------------------------------------------------------------------------------------------

_WHERE: dict[str, tuple[Namespace, str]] = {
    "error-predict": ("llm", "predict"),
    "error-load": ("llm", "getOrLoad"),
    "error-rpc": ("llm", "getModelInfo"),
    "error-http": ("llm", "getModelInfo"),
    "error-embed": ("embedding", "embedString"),
    "error-plugin": ("plugins", "startToolUseSession"),
}
"""The endpoint that fails."""

_WRAPPERS = {
    "error-predict": ("Channel Error", "Received prediction-error"),
    "error-load": ("Channel Error", "Received load-error", "Failed to load model"),
}
"""Titles whose cause is the message itself."""


def ways_of(row: Row) -> Iterator[dict[str, Any]]:
    """Yield the errors on the wire that may have the words of a row: its own, and the same in other members."""
    yield row.payload
    if row.payload.keys() == {"title"} and row.kind in _WRAPPERS:
        title = row.payload["title"]
        yield {"title": "Oh", "rootTitle": title}
        for wrapper in _WRAPPERS[row.kind]:
            yield {"title": wrapper, "cause": title}


def _ask(namespace: Namespace, name: str, reply: object) -> tuple[Exchange, RecordingReceiver]:
    """Return the first request of a session, to which the server replies with a frame, and what it has received."""
    session, receiver, endpoint = ClientSession(), RecordingReceiver(), ENDPOINTS[namespace][name]
    session.authenticate("guest:1", "secret")
    session.receive('{"success": true}', 0.0)
    exchange = exchange_type(endpoint)(endpoint, "{}", receiver, {}, 0.0)
    session.start(exchange)
    assert exchange.id == 1
    session.receive(json.dumps(reply), 0.0)
    return exchange, receiver


async def _play_error(row: Row) -> None:
    namespace, name = _WHERE[row.kind]
    endpoint = ENDPOINTS[namespace][name]
    for error in ways_of(row):
        if isinstance(endpoint, Channel):
            exchange, receiver = _ask(namespace, name, {"type": "channelError", "channelId": 1, "error": error})
            default, kind = endpoint.default_error, endpoint.error
        else:
            exchange, receiver = _ask(namespace, name, {"type": "rpcError", "callId": 1, "error": error})
            default, kind = lms.LMStudioServerError, None
        check_error(row, receiver.error, default if kind is None else kind)
        assert type(to_exception(error, exchange.label, default, kind=kind)) is type(receiver.error)
        _check_words(error, receiver.error)


def check_error(row: Row, error: BaseException, default: type[BaseException] = lms.LMStudioServerError) -> None:
    """Check that an error is one that the row expects; `LMStudioServerError` means: one without a known cause."""
    raises = str(row.expect.get("raises", type(error).__name__)).split("|")
    expected = {default.__name__ if each == "LMStudioServerError" else each for each in raises}
    said = {each.__name__ for each in type(error).__mro__}
    assert said & expected, f"{type(error).__name__}, not {' or '.join(sorted(expected))}: {error}"
    if row.expect.get("raises") == "LMStudioServerError":
        assert type(error) is default, f"the words say {type(error).__name__}: {error}"
    for name in ("limit", "used"):
        if name in row.expect:
            assert getattr(error, name, None) == row.expect[name], name


def _check_words(said: Mapping[str, Any], error: BaseException) -> None:
    """Check that the message has the server's words, unless it says the same with the numbers."""
    if isinstance(error, lms.LMStudioContextOverflowError) and error.used is not None:
        assert OVERFLOW.format(used=error.used, limit=error.limit) in str(error)
        return
    for name in said.keys() & {"title", "rootTitle", "cause"}:
        words = re.findall(r"\w{4,}", said[name])[:4]
        assert all(word in str(error) for word in words), f"{name}: {error}"


async def _play_rejection(row: Row) -> None:
    session = ClientSession()
    session.authenticate("lms:1", "secret")
    with pytest.raises(LMStudioError) as caught:
        session.receive(json.dumps(row.payload), 0.0)
    check_error(row, caught.value)
    assert row.payload["error"] in str(caught.value)


async def _play_warning(row: Row) -> None:
    text = row.payload["warning"]
    (name,) = re.findall(r"(?:endpointName|endpoint) = (\w+)", text)
    namespace: Namespace | None = next((each for each, names in ENDPOINTS.items() if name in names), None)
    if namespace is None:  # the recording asked for one that no server has
        namespace, name, text = "llm", "predict", text.replace(name, "predict")
    _, receiver = _ask(namespace, name, {**row.payload, "warning": text})
    check_error(row, receiver.error)
    assert name in str(receiver.error)


# What servers know ----------------------------------------------------------------------------------------------------


async def _play_list(row: Row) -> None:
    infos = [info for info in map(read_info, row.payload) if info is not None]
    said_of_known = [each for each in row.payload if each["type"] in INFO_TYPES]
    assert [info.model_key for info in infos] == row.expect.get("keys", [each["modelKey"] for each in said_of_known])
    for info, said in zip(infos, said_of_known, strict=True):
        _check_kept(info.to_dict(), said)


async def _play_instance(row: Row) -> None:
    info = INSTANCE_INFO_TYPES[row.payload["type"]].from_dict({"instanceReference": "r", **row.payload})
    _check_kept(info.to_dict(), row.payload)
    for name, value in row.expect.items():
        assert getattr(info, name) == value, name


def _check_kept(known: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Check that no value was lost or changed of those that this package knows."""
    kept = known.keys() & said.keys()
    assert {"modelKey", "path", "format"} & said.keys() <= kept
    assert {name: known[name] for name in kept} == {name: said[name] for name in kept}


async def _play_statistics(row: Row) -> None:
    statistics = LlmPredictionStats.from_dict(row.payload)
    assert (statistics.to_dict() == row.payload) is row.expect.get("same", True)


async def _play_load_config(row: Row) -> None:
    _check_settings(row, LlmLoadModelConfig.describe(row.payload))


async def _play_prediction_config(row: Row) -> None:
    _check_settings(row, LlmPredictionConfig.describe(row.payload))


def _check_settings(row: Row, settings: Mapping[str, Any]) -> None:
    for name, value in row.expect.get("settings", {}).items():
        assert settings.get(name) == value, f"{name} of {settings}"
    unnamed = settings.get("raw", {})
    assert unnamed.items() <= row.payload.items()
    assert len(unnamed) + len(settings.keys() - {"raw"}) >= 1


async def _play_hardware(row: Row) -> None:
    said: dict[str, Any] = {"memoryInfo": row.payload} if "totalMemory" in row.payload else dict(row.payload)
    memory = said.pop("memoryInfo")
    engine = {"name": "engine", "hardwareSurvey": said, "memoryInfo": memory}
    survey = lms.HardwareSurvey.from_dict({"status": "ok", "engines": [engine]})
    assert survey.memory_bytes == row.expect.get("memory_bytes", survey.memory_bytes)
    if "total_is_sum" in row.expect:
        parts = memory["ramCapacity"] + memory["vramCapacity"]
        assert (survey.memory_bytes == parts) is row.expect["total_is_sum"]
    gpus = [gpu["name"] for gpu in said.get("gpuSurveyResult", {}).get("gpuInfo", [])]
    assert [gpu.name for gpu in survey.gpus] == row.expect.get("gpus", gpus)
    assert survey.memory_bytes is not None
    assert 0 < survey.memory_bytes <= memory["totalMemory"]


async def _play_link(row: Row) -> None:
    status = LinkStatus.from_dict(row.payload)
    peers = {peer.device_name: peer.device_identifier for peer in status.peers if peer.is_connected}
    for name, identifier in row.expect.get("devices", peers).items():
        assert status.identifier_of(name) == identifier
        assert status.name_of(identifier) == name


# The whole client -----------------------------------------------------------------------------------------------------


class Script:
    """Answers calls and channels by their endpoints; without an answer, a call of a list gets an empty one.

    Args:
        answers: The frames for each endpoint, without the number of the call or the channel.
        once: The frames for its first call only; further calls get the answer.
    """

    def __init__(self, answers: Mapping[str, list[dict[str, Any]]], **once: list[dict[str, Any]]) -> None:
        self.answers, self.once, self.asked = {**_ANSWERS, **answers}, once, list[str]()

    async def __call__(self, socket: Socket) -> None:
        """Serve a connection."""
        await authenticate(socket)
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await receive(socket)
                name = frame.get("endpoint")
                if name is None:
                    continue
                self.asked.append(name)
                ids: dict[str, Any] = {each: frame[each] for each in ("callId", "channelId") if each in frame}
                for answer in self.once.pop(name, None) or self.answers[name]:
                    await send(socket, {**answer, **ids})


def packet(message: object) -> dict[str, Any]:
    """Return a frame with a packet."""
    return {"type": "channelSend", "message": message}


def result(value: object) -> dict[str, Any]:
    """Return a frame with a result."""
    return {"type": "rpcResult", "result": value}


_CLOSE = {"type": "channelClose"}
_LOADED = [packet({"type": "success", "info": INFO}), _CLOSE]
_ANSWERS: dict[str, list[dict[str, Any]]] = {
    "getOrLoad": _LOADED,
    "loadModel": _LOADED,
    "predict": [packet(END), _CLOSE],
    "listLoaded": [result([])],
    "listDownloadedModels": [result([])],
    "getModelInfo": [result(INFO)],
}


async def fail_in_the_client(row: Row) -> None:
    """Let a call of the whole client fail as in a row: a load or a prediction, however often it is tried."""
    failing = [{"type": "channelError", "error": row.payload}]
    names = ("predict",) if row.kind == "error-predict" else ("getOrLoad", "loadModel")
    script = Script(dict.fromkeys(names, failing))
    async with fake_server(script) as address, lms.AsyncClient(address) as client:
        with pytest.raises(LMStudioError) as caught:
            await client.llm.lazy_model("chatty").respond("hi")
    default = lms.LMStudioPredictionError if row.kind == "error-predict" else lms.LMStudioModelLoadError
    check_error(row, caught.value, default)


async def _respond(packets: list[Any], tools: Mapping[str, Any] | None = None) -> Any:
    script = Script({}, predict=[*map(packet, packets), packet(END), _CLOSE])
    raw = [{"type": "function", "function": {"name": name, "parameters": each}} for name, each in (tools or {}).items()]
    config = LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": raw} if raw else None)
    async with fake_server(script) as address, lms.AsyncClient(address) as client:
        return await client.llm.lazy_model("chatty").respond("hi", config=config, rescue_tool_calls=bool(raw))


async def _play_packets(row: Row) -> None:
    wanted = {name: {"type": "object"} for name, _ in row.expect.get("tool_calls", ())}
    _check_response(row, await _respond(row.payload, wanted))


async def _play_text(row: Row) -> None:
    fragment = {"content": row.payload["text"], "tokensCount": 1, "reasoningType": "none"}
    response = await _respond([{"type": "fragment", "fragment": fragment}], row.payload.get("tools"))
    _check_response(row, response)


def _check_response(row: Row, response: Any) -> None:
    calls = [[call.name, call.arguments] for call in response.tool_call_requests]
    made: dict[str, Any] = {
        "tool_calls": calls,
        "no_call": not calls,
        "content": response.content.strip(),
        "reasoning": response.reasoning_content.strip(),
    }
    assert {name: made[name] for name in row.expect} == dict(row.expect)


async def _play_load_packets(row: Row) -> None:
    script = Script({"getOrLoad": [*map(packet, row.payload), *_LOADED]})
    async with fake_server(script) as address, lms.AsyncClient(address) as client:
        await client.llm.lazy_model("chatty").respond("hi")
    assert (script.asked.count("getOrLoad") == 1) is row.expect.get("loads", True)


async def _play_tokens(row: Row) -> None:
    received = []
    for tokens in row.payload:
        script = Script({"tokenize": [result({"tokens": tokens})]})
        async with fake_server(script) as address, lms.AsyncClient(address) as client:
            received.append(await client.llm.lazy_model("chatty").tokenize("hi"))
    assert received == row.payload
    assert [len(tokens) for tokens in received] == row.expect.get("counts", [len(tokens) for tokens in row.payload])


async def _play_efforts(row: Row) -> None:
    from lmstudio_integrations.client.models.efforts import read_list

    listed = read_list(json.dumps(row.payload).encode())
    assert listed is not None
    made = {name: [[*each.allowed_options], each.default] for name, each in listed.items()}
    assert made == row.expect["efforts"]


async def _count(row: Row) -> None:
    """A fact is no message of a server, so there is nothing to play."""
    assert row.payload
    assert not row.expect


PLAYERS: Mapping[str, Player] = {
    **dict.fromkeys(_WHERE, _play_error),
    "error-auth": _play_rejection,
    "warning": _play_warning,
    "list": _play_list,
    "instance": _play_instance,
    "stats": _play_statistics,
    "load-config": _play_load_config,
    "prediction-config": _play_prediction_config,
    "hardware": _play_hardware,
    "hardware-survey": _play_hardware,
    "link": _play_link,
    "packets": _play_packets,
    "load-packets": _play_load_packets,
    "tool-text": _play_text,
    "reasoning-text": _play_text,
    "tokens": _play_tokens,
    "efforts": _play_efforts,
    "fact": _count,
}
"""What each kind of row is played by."""
