"""Images: send an image to the model as a content block.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set
`LMSTUDIO_VISION_MODEL` to use another model with vision support.
"""

import base64
import os
import struct
import zlib

from langchain_core.messages import HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_VISION_MODEL", "google/gemma-3-4b")


def png(color: tuple[int, int, int], size: int = 64) -> bytes:
    """Return a PNG image: a square of one color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(color) * size) * size
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def main() -> None:
    """Send a red square."""
    image = base64.b64encode(png((255, 0, 0))).decode()
    question = HumanMessage(
        [
            {
                "type": "text",
                "text": "What color is this square? Answer in one word.",
            },
            {"type": "image", "base64": image, "mime_type": "image/png"},
        ]
    )
    response = ChatLMStudio(model=MODEL, temperature=0, max_tokens=200).invoke(
        [question]
    )
    print(response.text)
    assert "red" in response.text.lower()


if __name__ == "__main__":
    main()
