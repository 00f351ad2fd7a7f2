"""The table of endpoints, entry by entry: what is sent is what the description says, and arrives whole."""

import json
from typing import Any

import pytest

from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Channel, Namespace, Rpc, channel
from lmstudio_integrations.protocol.requests import kebab_case
from lmstudio_integrations.protocol.server_session import ChannelOpened, ServerSession
from lmstudio_integrations.types._wire_model import WireModel
from tests.protocol.pair import SessionPair
from tests.protocol.samples import EMPTY_STACK, HELLO, PARAMETERS, QUERY, VOID
from tests.support.strict.listener import OLDER
from tests.support.strict.shapes import ABSENT, SCHEMAS, endpoints_of

OF_SDK = [namespace for namespace in ENDPOINTS if namespace in SCHEMAS["properties"]]
EVERY = [(namespace, name) for namespace in OF_SDK for name in ENDPOINTS[namespace]]
CHANNELS = [(namespace, name) for namespace, name in EVERY if isinstance(ENDPOINTS[namespace][name], Channel)]
SAMPLES = [(namespace, name, sample) for namespace, name in EVERY for sample in PARAMETERS.get(name, [])]


def written(value: Any) -> Any:
    """Return a request in wire form."""
    if isinstance(value, WireModel):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: written(member) for name, member in value.items()}
    return [written(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("namespace", OF_SDK)
def test_our_endpoints_are_those_of_the_sdk_and_each_has_a_sample(namespace: Namespace) -> None:
    described = endpoints_of(namespace)
    assert ENDPOINTS[namespace].keys() <= described.keys() | OLDER
    for name in ENDPOINTS[namespace].keys() & described.keys():
        member = "parameter" if isinstance(ENDPOINTS[namespace][name], Rpc) else "creationParameter"
        assert (described[name][member] == ABSENT) == (name in VOID) == (name not in PARAMETERS), name


def test_decision_models_have_the_endpoints_that_both_other_kinds_have_but_those_for_texts() -> None:
    assert ENDPOINTS.keys() - OF_SDK == {"decision"}, "newer than the SDK"
    shared = {name for name in ENDPOINTS["llm"] if ENDPOINTS["embedding"].get(name) == ENDPOINTS["llm"][name]}
    assert ENDPOINTS["decision"].keys() == shared - {"tokenize", "countTokens"}


@pytest.mark.parametrize(("namespace", "name", "sample"), SAMPLES, ids=lambda value: str(value)[:20])
def test_a_request_is_validated_without_loss(namespace: Namespace, name: str, sample: dict[str, Any]) -> None:
    pair = SessionPair(namespace)
    pair.call(name, sample)
    request = pair.called[0] if pair.called else pair.opened[0]
    assert request.endpoint is ENDPOINTS[namespace][name]
    assert written(request.parameter) == sample


@pytest.mark.parametrize(("namespace", "name"), CHANNELS)
def test_every_channel_is_cancelled_with_its_own_packet_or_not_at_all(namespace: Namespace, name: str) -> None:
    pair = SessionPair(namespace)
    exchange, _ = pair.call(name, *PARAMETERS.get(name, [])[:1])
    pair.client.cancel(exchange)
    pair.pump()
    others = {
        "retrieve": "stop",
        "streamLogs": "stop",
        "createDownloadPlan": "cancelPlan",
        "startToolUseSession": "discardSession",
        "alive": None,
    }
    word = others.get(name, "cancel")
    assert [request.packet for request in pair.client_packets] == ([] if word is None else [{"type": word}])


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("mcp/oracle_Stream", "mcp/oracle-stream"),
        ("mcp/My Files ", "mcp/my-files"),
        ("Qwen/Qwen2.5_7B", "qwen/qwen2.5-7b"),
        ("mcp/oracle-stream", None),
        ("weather", None),
        ("a/b/c", None),
        ("é/b", None),
    ],
)
def test_the_nearest_name_on_the_hub(identifier: str, expected: str | None) -> None:
    assert kebab_case(identifier) == expected


@pytest.mark.parametrize(("parameter", "is_accepted"), [({}, True), ({"parameter": None}, False)], ids=["void", "null"])
def test_an_optional_parameter_may_be_absent_but_not_null(parameter: dict[str, Any], is_accepted: bool) -> None:
    pair = SessionPair("runtime")
    frame = {"type": "rpcCall", "endpoint": "surveyHardware", "callId": 1, **parameter}
    assert (pair.server.receive(json.dumps(frame)) is not None) is is_accepted


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("getOrLoad", {"loadTtlMs": 0}),
        ("getOrLoad", {"loadTtlMs": 1500.5}),
        ("loadModel", {"ttlMs": -1}),
        ("loadModel", {"loadConfigStack": {"layers": [{"layerName": "mine", "config": {"fields": []}}]}}),
        ("predict", {"history": {"messages": [{"role": "user", "content": "hi"}]}}),
        ("predict", {"history": {"messages": [{"role": "developer", "content": []}]}}),
        ("predict", {"history": {"messages": [{"role": "tool", "content": [{"type": "text", "text": "3"}]}]}}),
        (
            "predict",
            {"history": {"messages": [{"role": "assistant", "content": [{"type": "reasoning", "text": "x"}]}]}},
        ),
        ("predict", {"modelSpecifier": {"type": "key", "key": "m"}}),
        ("predict", {"modelSpecifier": {"type": "query", "query": {"identifier": ""}}}),
        ("predict", {"modelSpecifier": {"type": "query", "query": {"path": "x" * 1025}}}),
        ("predict", {"modelSpecifier": {"type": "query", "query": {"identifier": "__proto__"}}}),
        ("predict", {"modelSpecifier": {"type": "query", "query": {"identifier": "line\nbreak"}}}),
        ("createDownloadPlan", {"target": {"type": "artifact", "owner": "Qwen", "name": "qwen3-4b"}}),
        ("createDownloadPlan", {"target": {"type": "artifact", "owner": "qwen", "name": "qwen3_4b"}}),
        ("createDownloadPlan", {"target": {"type": "url", "url": "a"}}),
        ("startToolUseSession", {"pluginConfigSpecifier": {"config": {"fields": []}}}),
        ("startToolUseSession", {"pluginConfigSpecifier": {"type": "direct"}}),
        ("startToolUseSession", {"pluginConfigSpecifier": {"type": "predictionProcess", "pci": "p"}}),
        ("generateWithGenerator", {"tools": [{"type": "function"}]}),
        ("generateWithGenerator", {"history": {"messages": [{"role": "user", "content": "hi"}]}}),
    ],
)
def test_values_that_the_protocol_forbids_are_rejected(name: str, change: dict[str, Any]) -> None:
    pair = SessionPair(next(namespace for namespace, endpoints in ENDPOINTS.items() if name in endpoints))
    bad = {**PARAMETERS[name][0], **change}
    frame = {"type": "channelCreate", "endpoint": name, "channelId": 1, "creationParameter": bad}
    assert pair.server.receive(json.dumps(frame)) is None
    (warning,) = pair.server.data_to_send()
    assert json.loads(warning)["kind"] == "channelCreationParameterTypeError"


def test_only_open_ended_channels_have_no_timeout() -> None:
    without = {name for namespace, name in CHANNELS if channel(namespace, name).timeout_name is None}
    assert without == {"alive", "streamLogs"}


def test_unknown_members_of_a_request_are_dropped() -> None:
    session = ServerSession(ENDPOINTS["llm"], lambda *_: None)
    session.receive(envelope.auth("me", "secret"))
    sent = {"modelSpecifier": QUERY, "history": HELLO, "predictionConfigStack": EMPTY_STACK, "unheardOf": 1}
    opened = session.receive(envelope.channel_create("predict", 1, json.dumps(sent)))
    assert isinstance(opened, ChannelOpened)
    assert opened.parameter.keys() == {"modelSpecifier", "history", "predictionConfigStack"}


@pytest.mark.parametrize(("member", "is_taken"), [("identifier", False), ("ttlMs", False), ("deviceIdentifier", True)])
def test_null_is_accepted_only_where_it_has_a_meaning(member: str, is_taken: bool) -> None:
    session = ServerSession(ENDPOINTS["llm"], lambda *_: None)
    session.receive(envelope.auth("me", "secret"))
    sent = {"modelKey": "m1", "loadConfigStack": EMPTY_STACK, member: None}
    opened = session.receive(envelope.channel_create("loadModel", 1, json.dumps(sent)))
    assert isinstance(opened, ChannelOpened) is is_taken
