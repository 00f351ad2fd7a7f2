"""The row `vision`: four images of one color each, and the question which one it is."""

import re
import struct
import zlib
from collections.abc import Sequence
from functools import partial

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of, outcomes, share_text
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.models import LlmInstanceInfo, ModelInstanceInfo

COLORS = {"red": b"\xff\x00\x00", "green": b"\x00\x80\x00", "blue": b"\x00\x00\xff", "yellow": b"\xff\xff\x00"}
SIZE = 64
"""Pixels of a side. Models that divide images into patches reject much smaller ones."""

MAX_TOKENS = 24


def png(color: bytes) -> bytes:
    """Return a square of one color as a PNG file."""
    rows = zlib.compress((b"\x00" + color * SIZE) * SIZE)
    chunks = (b"IHDR" + struct.pack(">2I5B", SIZE, SIZE, 8, 2, 0, 0, 0), b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _ask(color: str, name: str, asking: Asking) -> Flow[None]:
    images = yield from asking.llm.prepare_images([png(COLORS[color])], allow_private_hosts=False)
    chat = Chat()
    number = name.partition("/")[2]
    prompt = asking.vary(f"Image {number}. Which color is this image? Reply with one word.")
    chat.add_user_message(prompt, images=images)
    reply = yield from asking.respond(chat, MAX_TOKENS)
    words = re.findall(r"\w+", reply.result.content.casefold()) if reply.result else []
    seen = [each for each in COLORS if each in words]
    outcome = "rejected" if reply.result is None else "right" if seen == [color] else "wrong"
    asking.verdict(name, outcome, outcome == "right", "" if outcome == "right" else reply.text)


def _missing(info: ModelInstanceInfo) -> str | None:
    return None if isinstance(info, LlmInstanceInfo) and info.vision else "the model sees no images"


def _summarize(observations: Sequence[Observation]) -> Summary:
    failures = failures_of(observations)
    text = f"{share_text(observations)} colors right" + (f"; {outcomes(failures)}" if failures else "")
    advice = "use another model for images; user_max_image_dimension_pixels limits what it gets of them"
    return Summary(text, advice if failures else None)


VISION = Row(
    name="vision",
    question="Does the model see the images that it gets?",
    anchor="images",
    cases=[Case(f"color/{number}", partial(_ask, color, f"color/{number}")) for number, color in enumerate(COLORS, 1)],
    prompt_tokens=4_000,
    predicted_tokens=1_200,
    summarize=_summarize,
    missing=_missing,
    apart=True,
)
