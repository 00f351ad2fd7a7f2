"""Images: a picture goes to the model as a content block of the question.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_VISION_MODEL` names another model.
Take one that can see.
"""

import base64
import os
import struct
import zlib

from langchain_core.messages import HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_VISION_MODEL", "google/gemma-3-4b")


def png(colour: tuple[int, int, int], size: int = 64) -> bytes:
    """Draw a square of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * size) * size
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main() -> None:
    """Show a red square."""
    picture = base64.b64encode(png((255, 0, 0))).decode()
    question = HumanMessage(
        [
            {"type": "text", "text": "Which colour has this square? Answer in one word."},
            {"type": "image", "base64": picture, "mime_type": "image/png"},
        ]
    )
    answer = ChatLMStudio(model=MODEL, temperature=0, max_tokens=200).invoke([question])
    print(answer.text)
    assert "red" in answer.text.lower()


if __name__ == "__main__":
    main()
