"""The images of a conversation: which of them may be downloaded. The client downloads and uploads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmstudio_integrations._adapters.conversation import PendingMessage, images, to_wire
from lmstudio_integrations._urls import redacted_url
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.pending import PendingHistory


def to_history(pending: Sequence[PendingMessage], values: Mapping[str, Any]) -> WireHistory | PendingHistory:
    """Return a conversation as the client sends it, after it has uploaded the images.

    Args:
        pending: The messages.
        values: The settings of the call.

    Raises:
        LMStudioValueError: If an image would have to be downloaded, and may not.
    """
    sources = images(pending)
    if not sources:
        return to_wire(pending, {})
    for source in sources:
        if source.url and not values["allow_image_download"]:
            raise LMStudioValueError(
                f"the image {redacted_url(source.url)} is on the web; set allow_image_download=True to download it, "
                "or pass its data"
            )

    def with_handles(handles: Sequence[FileHandle]) -> WireHistory:
        return to_wire(pending, dict(zip(sources, handles, strict=True)))

    contents = [source.data if source.url is None else source.url for source in sources]
    return PendingHistory(contents, with_handles, bool(values["allow_private_image_hosts"]))
