"""Texts for an embedding model, made to fit its window as the length policy says.

The window is asked for once, and again before a text is refused or cut: the model may have been loaded anew.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from lmstudio_integrations._adapters import lengths
from lmstudio_integrations._adapters.instances import ainfo_of, info_of
from lmstudio_integrations._adapters.lengths import LengthPolicy
from lmstudio_integrations._adapters.runtime import Runtime, Server, Wanted

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncEmbeddingModel
    from lmstudio_integrations.client.sync import EmbeddingModel


def fitting(
    model: "EmbeddingModel", runtime: Runtime, where: tuple[Server, Wanted], texts: list[str], policy: LengthPolicy
) -> list[str]:
    """Return what is embedded in the place of some texts.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """

    def answer(asked: list[str] | None) -> Any:
        return info_of(model).to_dict() if asked is None else model.count_tokens(asked)

    return lengths.carried_out(_steps(runtime, where, texts, policy), answer)


async def afitting(
    model: "AsyncEmbeddingModel",
    runtime: Runtime,
    where: tuple[Server, Wanted],
    texts: list[str],
    policy: LengthPolicy,
) -> list[str]:
    """Return what is embedded in the place of some texts.

    Raises:
        LMStudioContextOverflowError: If one is too long and the policy is `error`.
    """

    async def answer(asked: list[str] | None) -> Any:
        return (await ainfo_of(model)).to_dict() if asked is None else await model.count_tokens(asked)

    return await lengths.acarried_out(_steps(runtime, where, texts, policy), answer)


def _steps(
    runtime: Runtime, where: tuple[Server, Wanted], texts: list[str], policy: LengthPolicy
) -> Generator[list[str] | None, Any, list[str]]:
    """Yield `None` to be sent what the server knows of the model, and texts to be sent the numbers of their tokens."""
    size = lengths.longest(texts)
    if policy == "pass" or size <= lengths.ALWAYS_FITS:
        return texts
    if not lengths.surely_fits(size, _known_window(runtime, where)):
        runtime.learn(*where, (yield None))
    return (yield from lengths.plan(texts, _known_window(runtime, where), policy))


def _known_window(runtime: Runtime, where: tuple[Server, Wanted]) -> int:
    """Return the window of the model as far as it is known; 0 if it is not."""
    facts = runtime.facts(*where)
    return 0 if facts is None else int(facts.info["contextLength"])
