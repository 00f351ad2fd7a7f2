"""What a fault sends in the place of a server is valid, unless the fault is that it is not."""

from collections.abc import Mapping

import pytest

from tests.conformance.made_packets import Made, made
from tests.support.strict.endpoint_shapes import ERROR, FROM_GENERATOR, ID
from tests.support.strict.server_shapes import PACKETS
from tests.support.strict.shapes import BOOLEAN, FREE, TEXT, Object, Shape, one_of

FRAMES: Mapping[str, Shape] = {
    "rpcResult": Object({"callId": ID}, {"result": FREE}),
    "rpcError": Object({"callId": ID, "error": ERROR}),
    "channelSend": Object({"channelId": ID, "message": FREE}),
    "channelClose": Object({"channelId": ID}),
    "channelError": Object({"channelId": ID, "error": ERROR}),
    "communicationWarning": Object(
        {"warning": TEXT, "kind": one_of("rpcParameterTypeError", "channelCreationParameterTypeError")}
    ),
}
"""The frames of a server, of which a fault may make any (docs/protocol.md#server-frames)."""
AUTHENTICATION = Object({"success": BOOLEAN}, {"error": TEXT})
CHANNELS = {**PACKETS["llm"], "generateWithGenerator": FROM_GENERATOR}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frames() -> list[Made]:
    """What all faults make."""
    return made()


def wrong_with(each: Made) -> list[str]:
    frame = each.frame
    if not isinstance(frame, dict):
        return [f"{frame!r} is no frame"]
    if not each.endpoint:
        return [*AUTHENTICATION.check(frame, "")]
    kind = str(frame.get("type"))
    if kind not in FRAMES:
        return [f"unknown frame {kind!r}"]
    found = [*FRAMES[kind].check({name: value for name, value in frame.items() if name != "type"}, kind)]
    if kind == "channelSend":
        found += CHANNELS[each.endpoint].check(frame["message"], each.endpoint)
    return found


def test_what_a_fault_makes_is_valid(frames: list[Made]) -> None:
    wrong = [
        (each.fault, each.frame, found) for each in frames if not each.is_malformed and (found := wrong_with(each))
    ]
    assert wrong == []


def test_faults_of_each_kind_make_frames(frames: list[Made]) -> None:
    assert len({each.fault for each in frames if not each.is_malformed}) >= 10
    assert any(wrong_with(each) for each in frames if each.is_malformed)
