"""Texts for an embedding model, made to fit its window as the length policy says.

The window is asked for once, and again before a text is refused or cut: the model may have been loaded anew.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._adapters import lengths
from lmstudio_integrations._adapters.lengths import EmbeddingRequest
from lmstudio_integrations._adapters.runtime import ModelSpec, Runtime, Server
from lmstudio_integrations._typeguards import is_count

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncEmbeddingModel
    from lmstudio_integrations.client.sync import EmbeddingModel


def fitting(
    model: "EmbeddingModel", runtime: Runtime, where: tuple[Server, ModelSpec], request: EmbeddingRequest
) -> list[str]:
    """Return what is embedded in the place of some texts.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """

    def answer(asked: list[str] | None) -> Any:
        return model.get_info(load=True).to_dict() if asked is None else model.count_tokens(asked)

    return lengths.carried_out(_steps(runtime, where, request), answer)


async def afitting(
    model: "AsyncEmbeddingModel", runtime: Runtime, where: tuple[Server, ModelSpec], request: EmbeddingRequest
) -> list[str]:
    """Return what is embedded in the place of some texts.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """

    async def answer(asked: list[str] | None) -> Any:
        return (await model.get_info(load=True)).to_dict() if asked is None else await model.count_tokens(asked)

    return await lengths.acarried_out(_steps(runtime, where, request), answer)


def _steps(
    runtime: Runtime, where: tuple[Server, ModelSpec], request: EmbeddingRequest
) -> Generator[list[str] | None, Any, list[str]]:
    """Yield `None` to be sent what the server knows of the model, and texts to be sent the numbers of their tokens."""
    size = lengths.longest(request.texts)
    if request.policy == "pass" or size <= lengths.ALWAYS_FITS:
        return request.texts
    if not lengths.surely_fits(size, _known_window(runtime, where)[0]):
        runtime.record_info(*where, (yield None))
    return (yield from lengths.plan(request, *_known_window(runtime, where)))


def _known_window(runtime: Runtime, where: tuple[Server, ModelSpec]) -> tuple[int, int | None]:
    """Return the context window of the model, 0 if it is not known, and the longest that it may be loaded with."""
    loaded = runtime.model_info(*where)
    if loaded is None:
        return 0, None
    maximum = loaded.info.get("maxContextLength")
    return int(loaded.info["contextLength"]), maximum if is_count(maximum) else None
