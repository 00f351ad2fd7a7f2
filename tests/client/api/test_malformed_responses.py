"""Servers that respond with nonsense: every call ends promptly with a package error, and the client stays usable."""

import contextlib
import http
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.operation import decode_errors
from tests.client.public_calls import CALLS
from tests.protocol.transcripts import LLM_INSTANCE

PACKETS: list[Any] = [
    *(None, 5, "text", [], [None], [[]], [{}], {}),
    *({"fields": 5}, {"tokens": "x"}, {"embedding": {}}),
    {"type": "loadSuccess", "info": {"identifier": 5}},
    {"type": "loadProgress", "progress": "half"},
    {"type": "fragment", "fragment": {"content": 5}},
    {"type": "success"},
    {"type": "success", "info": []},
    {"type": "result", "content": 5, "parser": None},
    {"type": "error", "error": 5},
]
"""`tests/fuzz` makes more of them."""


class Nonsense:
    """A server whose responses a test chooses; it knows one model, so that there are handles."""

    def __init__(self) -> None:
        self.response: Any = None
        self.honest = True

    def greet(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path != "/lmstudio-greeting":
            return None
        return socket.respond(http.HTTPStatus.OK, '{"lmstudio":true}')

    def serve(self, socket: ServerConnection) -> None:
        socket.recv()
        socket.send('{"success":true}')
        with contextlib.suppress(OSError):
            for text in socket:
                for frame in self._responses(json.loads(text)):
                    socket.send(json.dumps(frame))

    def _responses(self, frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if frame["type"] == "rpcCall":
            result = LLM_INSTANCE if self.honest else self.response
            yield {"type": "rpcResult", "callId": frame["callId"], "result": result}
        elif frame["type"] == "channelCreate":
            yield {"type": "channelSend", "channelId": frame["channelId"], "message": self.response}
            yield {"type": "channelClose", "channelId": frame["channelId"]}


@pytest.fixture(scope="module")
def nonsense() -> Iterator[tuple[Nonsense, lms.Client]]:
    """A server of nonsense and one client for all tests: the client must survive every response."""
    server = Nonsense()
    with serve(server.serve, "127.0.0.1", 0, process_request=server.greet) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        with lms.Client(f"127.0.0.1:{listening.socket.getsockname()[1]}", idle_timeout=None) as client:
            yield server, client
        listening.shutdown()
        thread.join(600)


def _ends_well(call: Callable[[], Any]) -> bool:
    """Make a call: it returns if the nonsense happens to be valid, or raises a package error at once."""
    try:
        str(call())
    except lms.LMStudioError as error:
        return bool(str(error)) and not isinstance(error, lms.LMStudioTimeoutError)
    return True


@pytest.mark.parametrize("name", CALLS)
def test_a_malformed_response_raises_a_package_error(nonsense: tuple[Nonsense, lms.Client], name: str) -> None:
    server, client = nonsense
    server.honest = True
    model, embedder = client.llm.model(), client.embedding.model()
    server.honest = False
    for response in PACKETS:
        server.response = response
        assert _ends_well(lambda: CALLS[name](client, model, embedder)), response


def _with(name: str, *values: Any) -> list[Any]:
    return [{name: value} for value in values]


MALFORMED: dict[str, tuple[Callable[[lms.Client], Any], list[Any]]] = {
    "embed": (
        lambda client: client.embedding.lazy_model("m1").embed("hi"),
        _with("embedding", "123", {"a": 1}, ["1"], [True], [10**400], [[0.5]]),
    ),
    "tokenize": (
        lambda client: client.llm.lazy_model("m1").tokenize("hi"),
        _with("tokens", "12", {"a": 1}, ["1"], [1.5], [True]),
    ),
    "count_tokens": (
        lambda client: client.llm.lazy_model("m1").count_tokens("hi"),
        _with("tokenCount", "3", None, -1, 1.5, True, 10**30),
    ),
    "get_load_config": (
        lambda client: client.llm.lazy_model("m1").get_load_config(),
        _with("fields", [{"key": "llm.load.promptTemplate", "value": json.loads("[" * 300 + "]" * 300)}], [{}], {}),
    ),
    "get_base_config": (
        lambda client: client.llm.lazy_model("m1").get_base_config(),
        _with("fields", 5, [{"key": 5}]),
    ),
    "apply_prompt_template": (
        lambda client: client.llm.lazy_model("m1").apply_prompt_template("hi"),
        _with("formatted", 5, ["a"]),
    ),
}


@pytest.mark.parametrize(
    ("name", "response"),
    [(name, response) for name, (_, responses) in MALFORMED.items() for response in responses],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_the_wrong_type_is_a_protocol_error(
    nonsense: tuple[Nonsense, lms.Client], name: str, response: Any
) -> None:
    server, client = nonsense
    server.response = {"type": "alreadyLoaded", "info": LLM_INSTANCE, **response}
    server.honest = False
    with pytest.raises(lms.LMStudioProtocolError):
        MALFORMED[name][0](client)


def _named(field: str, name: str) -> dict[str, Any]:
    info = {**LLM_INSTANCE, field: name}
    return {**info, "info": info, "type": "alreadyLoaded"}


def _listed(field: str, name: str) -> list[Any]:
    return [{**LLM_INSTANCE, field: name}]


UNUSABLE = ["", "\ud800", "\0", "__proto__", "x" * 1025]
NAMING: dict[str, tuple[Callable[[lms.Client], Any], str, list[str], Callable[[str, str], Any]]] = {
    "model": (lambda client: client.llm.model("m1").get_info(), "identifier", UNUSABLE, _named),
    "list_loaded": (lambda client: client.llm.list_loaded()[0].get_info(), "identifier", UNUSABLE, _listed),
    "list_downloaded": (lambda client: client.llm.list_downloaded()[0].model(), "modelKey", ["", " "], _listed),
}


@pytest.mark.parametrize(
    ("use", "name"),
    [(use, name) for use, (_, _, names, _) in NAMING.items() for name in names],
    ids=lambda value: ascii(value)[:40],
)
def test_a_name_that_no_request_can_have_is_an_error_of_the_server_and_not_of_the_caller(
    nonsense: tuple[Nonsense, lms.Client], use: str, name: str
) -> None:
    server, client = nonsense
    call, field, _, response = NAMING[use]
    server.honest, server.response = False, response(field, name)
    with pytest.raises(lms.LMStudioProtocolError) as caught:
        call(client)
    assert "the server" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", [name for name in UNUSABLE if name])
def test_a_name_of_the_caller_that_no_request_can_have_is_an_error_of_the_caller(
    nonsense: tuple[Nonsense, lms.Client], name: str
) -> None:
    _, client = nonsense
    with pytest.raises(lms.LMStudioValueError, match="cannot name a model"):
        client.llm.model(name, load_policy="require_loaded")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda: dict[str, int]()["identifier"], "it has no 'identifier'"),
        (lambda: [].identifier, "a part of it has another form than expected"),  # type: ignore[attr-defined]
        (lambda: TypeAdapter(dict[str, int]).validate_python({"a": "x", "b": "y"}), "a: Input should be a valid"),
    ],
)
def test_the_error_about_a_malformed_response_is_no_exception_of_python(
    read: Callable[[], object], reason: str
) -> None:
    with pytest.raises(lms.LMStudioProtocolError) as caught, decode_errors("Model list"):
        read()
    assert f"Model list: the server's response cannot be read: {reason}" in str(caught.value)
    assert str(caught.value).endswith("; update LM Studio and this package")
    assert str(caught.value).count("; ") == 1, "what follows is the remedy"


# One odd entry of a list ----------------------------------------------------------------------------------------------

NAME = {"identifier": {"type": "catalog", "identifier": "a/b"}, "name": "b"}
OPTION = {"name": "b", "sizeBytes": 1, "fitEstimation": "fullGPUOffload", "downloadIdentifier": "d"}
PEER = {"deviceIdentifier": "d", "deviceName": "studio", "status": "connected"}
GPU = {"name": "A", "deviceId": 0, "totalMemoryCapacityBytes": 8, "integrationType": "discrete"}


def _surveyed(gpus: list[Any]) -> dict[str, Any]:
    return {"status": "ok", "engines": [{"name": "e", "hardwareSurvey": {"gpuSurveyResult": {"gpuInfo": gpus}}}]}


LISTS: dict[
    str, tuple[Callable[[lms.Client], list[Any]], dict[str, Any], Callable[[list[Any]], Any], Mapping[str, Any]]
] = {
    "loaded": (
        lambda client: client.llm.list_loaded(),
        LLM_INSTANCE,
        lambda items: items,
        {"quantization": "4bit", "variants": 5, "ttlMs": "never", "paramsString": 7},
    ),
    "downloaded": (
        lambda client: [model.info for model in client.system.list_downloaded_models()],
        LLM_INSTANCE,
        lambda items: items,
        {"quantization": "4bit", "vision": "yes please", "selectedVariant": {}, "publisher": 5},
    ),
    "found": (
        lambda client: client.repository.search_models("b"),
        NAME,
        lambda items: {"results": items},
        {"exact": "perhaps", "staffPick": 5.5},
    ),
    "linked devices": (
        lambda client: list(client.link_status().peers),
        PEER,
        lambda items: {"status": "online", "peers": items, "issues": [5]},
        {},
    ),
    "GPUs": (
        lambda client: client.hardware().gpus,
        GPU,
        _surveyed,
        {"totalMemoryCapacityBytes": None, "detectionPlatform": 5},
    ),
}
"""What lists them, an entry, what the server sends of entries, and odd values of optional members."""

OF_LEAVES = {"found": pytest.mark.leaf("downloads"), "GPUs": pytest.mark.leaf("hardware")}


@pytest.mark.parametrize("name", [pytest.param(each, marks=OF_LEAVES.get(each, ())) for each in LISTS])
def test_one_odd_entry_of_a_list_hides_no_other_and_keeps_what_can_be_read(
    nonsense: tuple[Nonsense, lms.Client], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = nonsense
    listed, entry, response, odd = LISTS[name]
    server.honest, server.response = False, response([entry])
    (expected,) = listed(client)
    for member, value in odd.items():
        server.response = response([{**entry, member: value}, {**entry, "deviceId": 1}])
        first, second = listed(client)
        assert type(first) is type(second) is type(expected), member
        assert not caplog.records, "nothing is left out"
    unreadable: list[Any] = [5, None, [], *([] if name == "GPUs" else [{}])]
    for broken in unreadable:
        server.response = response([broken, entry])
        assert list(map(repr, listed(client))) == [repr(expected)]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"type": "llm"}, 5], "it has no 'modelKey'"),
        ([5, {"type": "llm"}], "it has no 'modelKey'"),
        (
            [{**LLM_INSTANCE, "type": None}, {name: LLM_INSTANCE[name] for name in LLM_INSTANCE if name != "type"}],
            "'type'",
        ),
        ([{**LLM_INSTANCE, "sizeBytes": None}], "sizeBytes: Field required"),
    ],
)
def test_a_list_of_which_nothing_can_be_read_is_an_error_that_names_a_member(
    nonsense: tuple[Nonsense, lms.Client], items: list[Any], reason: str
) -> None:
    server, client = nonsense
    server.honest, server.response = False, items
    with pytest.raises(lms.LMStudioProtocolError, match=f"cannot be read: .*{reason}"):
        client.system.list_downloaded_models()


def test_an_entry_that_is_left_out_is_named_in_the_log(
    nonsense: tuple[Nonsense, lms.Client], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = nonsense
    server.honest, server.response = False, [LLM_INSTANCE, {**LLM_INSTANCE, "sizeBytes": "much"}]
    assert len(client.system.list_downloaded_models()) == 1
    assert "Model list: left out 1 of 2 entries, which cannot be read: sizeBytes: Field required" in caplog.text
