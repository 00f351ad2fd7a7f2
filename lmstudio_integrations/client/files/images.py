"""Upload the images of a conversation; an image that is given by its URL is downloaded first.

The clients and `predictions/requests.py` call it. `fetch.py` downloads, `uploads.py` uploads.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from lmstudio_integrations._support.urls import redacted_url
from lmstudio_integrations.client.files.uploads import FileInput, prepare_image
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.errors import LMStudioImageDownloadError, LMStudioTimeoutError
from lmstudio_integrations.types.files import FileHandle

DOWNLOAD_TIMEOUT = 30.0
"""Seconds for the download of one image, if the call has no `timeout`."""

_HTTP = re.compile("https?:", re.IGNORECASE)


def prepare_images(
    dispatcher: Dispatcher[Any], images: Sequence[FileInput], *, allow_private_hosts: bool
) -> Flow[list[FileHandle]]:
    """Upload images; download those that are http or https URLs first."""
    handles: list[FileHandle] = []
    for image in list_of(images, "images"):
        source = image
        if isinstance(image, str) and _HTTP.match(image):
            source = yield from _download(dispatcher, image, allow_private=allow_private_hosts)
        handles.append((yield from prepare_image(dispatcher, source, None)))
    return handles


def _download(dispatcher: Dispatcher[Any], url: str, *, allow_private: bool) -> Flow[bytes]:
    """Download an image within the rest of the call's `timeout`."""
    shown = redacted_url(url)
    try:
        from lmstudio_integrations.client.files.fetch import fetch  # noqa: PLC0415 - lazy: keeps import cheap
    except ModuleNotFoundError as error:
        from lmstudio_integrations._support.installation import package_command  # noqa: PLC0415 - slow

        raise LMStudioImageDownloadError(
            f"cannot download the image {shown}: this needs {error.name}; run: {package_command(str(error.name))}, "
            "or pass the image's data",
            url=shown,
        ) from error
    total = dispatcher.timeouts.get("timeout")
    limit = DOWNLOAD_TIMEOUT if total is None else max(0.0, total - dispatcher.elapsed)
    connect = dispatcher.timeouts.get("connect_timeout")
    work = partial(fetch, url, allow_private=allow_private, limit=limit, connect_limit=connect)
    try:
        return (yield from wait_for(dispatcher.run_task(work)))
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
            elapsed=dispatcher.elapsed,
        ) from error
