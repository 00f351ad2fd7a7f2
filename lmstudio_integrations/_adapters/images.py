"""Images of a conversation: which may be downloaded, and the upload on the way to a prediction."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmstudio_integrations._adapters.conversation import ImageSource
from lmstudio_integrations._adapters.generation_settings import ResolvedCall
from lmstudio_integrations._urls import redacted_url
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.files import FileHandle

if TYPE_CHECKING:
    from lmstudio_integrations.client._files import FileInput
    from lmstudio_integrations.client.asynchronous import AsyncLLM
    from lmstudio_integrations.client.sync import LLM

Handles = dict[ImageSource, FileHandle]


def check_allowed(sources: Iterable[ImageSource], *, allowed: bool) -> None:
    """Reject images on the web unless they may be downloaded.

    Raises:
        LMStudioValueError: If one is, and may not.
    """
    for source in sources:
        if source.url and not allowed:
            raise LMStudioValueError(
                f"the image {redacted_url(source.url)} is on the web; set allow_image_download=True to download it, "
                "or pass its data"
            )


def upload(call: ResolvedCall, sources: Sequence[ImageSource]) -> "tuple[LLM, Handles]":
    """Upload images; return the model, whose `timeout` counts from now, and the handles."""
    model = call.model()
    if not sources:
        return model, {}
    model = model.with_shared_timeout()
    handles = model.prepare_images(_inputs(sources), allow_private_image_hosts=_private_hosts(call))
    return model, dict(zip(sources, handles, strict=True))


async def aupload(call: ResolvedCall, sources: Sequence[ImageSource]) -> "tuple[AsyncLLM, Handles]":
    """Upload images; return the model, whose `timeout` counts from now, and the handles."""
    model = call.async_model()
    if not sources:
        return model, {}
    model = model.with_shared_timeout()
    handles = await model.prepare_images(_inputs(sources), allow_private_image_hosts=_private_hosts(call))
    return model, dict(zip(sources, handles, strict=True))


def _inputs(sources: Iterable[ImageSource]) -> "list[FileInput]":
    return [source.data if source.url is None else source.url for source in sources]


def _private_hosts(call: ResolvedCall) -> bool:
    return bool(call.values["allow_private_image_hosts"])
