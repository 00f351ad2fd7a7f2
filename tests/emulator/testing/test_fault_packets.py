"""What a fault sends in the place of a server is valid, unless the fault is that it is not."""

import pytest

from tests.conformance.made_packets import Made, made
from tests.support.strict.shapes import schema_of, wrong_with

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frames() -> list[Made]:
    """What all faults make."""
    return made()


def wrong_with_frame(each: Made) -> list[str]:
    frame = each.frame
    if not isinstance(frame, dict):
        return [f"{frame!r} is no frame"]
    if not each.endpoint:
        return [] if isinstance(frame.get("success"), bool) and frame.keys() <= {"success", "error"} else [str(frame)]
    wrong = [*wrong_with(frame, schema_of("frames", "server"), "the frame")]
    if not wrong and frame["type"] == "channelSend":
        return [*wrong_with(frame["message"], schema_of(each.namespace, each.endpoint, "server"), each.endpoint)]
    return wrong


def test_what_a_fault_makes_is_valid(frames: list[Made]) -> None:
    found = [(each.fault, each.frame, wrong_with_frame(each)) for each in frames if not each.is_malformed]
    assert [each for each in found if each[2]] == []


def test_faults_of_each_kind_make_frames(frames: list[Made]) -> None:
    assert len({each.fault for each in frames if not each.is_malformed}) >= 10
    assert any(wrong_with_frame(each) for each in frames if each.is_malformed)
