"""Pictures of a conversation: fetched where that is allowed, and uploaded."""

import asyncio
from collections.abc import Iterable
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lmstudio_integrations._adapters.conversation import ImageSource
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from lmstudio_integrations.types.files import FileHandle

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncClient
    from lmstudio_integrations.client.sync import Client

_LARGEST = 20 * 2**20
_TIMEOUT = 30.0
_AGENT = "lmstudio-integrations"


def check_allowed(sources: Iterable[ImageSource], *, allowed: bool) -> None:
    """Refuse pictures on the web unless they may be fetched.

    Raises:
        LMStudioValueError: If one is, and may not.
    """
    for source in sources:
        if source.url and not allowed:
            raise LMStudioValueError(
                f"the image {source.url} is on the web; set allow_image_download=True to have it fetched, "
                "or pass its data"
            )


def download(url: str) -> bytes:
    """Fetch a picture.

    Raises:
        LMStudioOSError: If it cannot be fetched, or is larger than 20 MB.
    """
    try:
        with urlopen(Request(url, headers={"User-Agent": _AGENT}), timeout=_TIMEOUT) as response:  # noqa: S310 - http(s) only
            data: bytes = response.read(_LARGEST + 1)
    except (OSError, HTTPException, ValueError) as error:  # what is no address fails in several ways
        if isinstance(error, HTTPError):
            error.close()
        raise LMStudioOSError(f"cannot fetch the image {url}: {error}") from error
    if len(data) > _LARGEST:
        raise LMStudioOSError(f"the image {url} is larger than {_LARGEST // 2**20} MB")
    return data


def upload(client: "Client", sources: Iterable[ImageSource]) -> dict[ImageSource, FileHandle]:
    """Upload pictures."""
    return {source: client.files.prepare_image(_content(source)) for source in sources}


async def aupload(client: "AsyncClient", sources: Iterable[ImageSource]) -> dict[ImageSource, FileHandle]:
    """Upload pictures; they are fetched by a thread of their own."""
    handles: dict[ImageSource, FileHandle] = {}
    for source in sources:
        data = await asyncio.to_thread(_content, source)
        handles[source] = await client.files.prepare_image(data)
    return handles


def _content(source: ImageSource) -> bytes:
    return source.data if source.url is None else download(source.url)
