"""Upload the images of a conversation; an image that is given by its URL is downloaded first.

`predictions/` calls it. `fetch.py` downloads, `uploads.py` uploads.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations.client.files.uploads import FileInput, prepare_image
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioImageDownloadError, LMStudioTimeoutError
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.files import FileHandle

DOWNLOAD_TIMEOUT = 30.0
"""Seconds for the download of one image, if the call has no `timeout`."""

_HTTP = re.compile("https?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PendingHistory:
    """A conversation whose images are not uploaded yet.

    Attributes:
        images: The images: the content of a file, its path, or an http or https URL to download it from.
        encode: Builds the conversation from the handles of the uploaded images, in the order of `images`.
        allow_private_hosts: Whether images may be downloaded from addresses that are not public.
        files: The files in it that are uploaded already.
        has_reasoning: Whether there are earlier thoughts in it.
    """

    images: Sequence[bytes | str | Path]
    encode: Callable[[Sequence[FileHandle]], WireHistory]
    allow_private_hosts: bool = False
    files: Sequence[FileHandle] = ()
    has_reasoning: bool = False


def prepare_images(
    operation: Operation, images: Sequence[FileInput], *, allow_private_hosts: bool
) -> Flow[list[FileHandle]]:
    """Upload images; download those that are http or https URLs first."""
    handles: list[FileHandle] = []
    for image in list_of(images, "images"):
        source = image
        if isinstance(image, str) and _HTTP.match(image):
            source = yield from _download(operation, image, allow_private=allow_private_hosts)
        handles.append((yield from prepare_image(operation, source, None)))
    return handles


def _download(operation: Operation, url: str, *, allow_private: bool) -> Flow[bytes]:
    """Download an image within the rest of the call's `timeout`."""
    shown = redacted_url(url)
    try:
        from lmstudio_integrations.client.files.fetch import fetch  # noqa: PLC0415 - httpx: an extra, 90 ms
    except ModuleNotFoundError as error:
        raise LMStudioImageDownloadError(
            f"cannot download the image {shown}: this needs {error.name}; run: {package_command(str(error.name))}, "
            "or pass the image's data",
            url=shown,
        ) from error
    total = operation.timeouts.get("timeout")
    limit = DOWNLOAD_TIMEOUT if total is None else max(0.0, total - operation.elapsed)
    connect = operation.timeouts.get("connect_timeout")
    work = partial(fetch, url, allow_private=allow_private, limit=limit, connect_limit=connect)
    try:
        return (yield from operation.context.run_task(work))
    except TimeoutError as error:
        if total is None:
            raise LMStudioImageDownloadError(
                f"cannot download the image {shown}: it did not arrive within {limit:g} s; set timeout to more "
                "seconds, or pass the image's data",
                url=shown,
            ) from error
        raise LMStudioTimeoutError(
            f"Image download: {shown} did not arrive: timeout expired after {total:.12g} s; raise timeout, or "
            "pass the image's data",
            timeout_name="timeout",
            elapsed=operation.elapsed,
        ) from error
