"""Texts for an embedding model, made to fit its window as the length policy says.

The window is asked for once, and again before a text is refused or cut: the model may have been loaded anew.
"""

from typing import TYPE_CHECKING

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
    size = lengths.longest(texts)
    if policy == "pass" or size <= lengths.ALWAYS_FITS:
        return texts
    if not lengths.surely_fits(size, _known_window(runtime, where)):
        runtime.learn(*where, info_of(model).to_dict())
    steps = lengths.plan(texts, _known_window(runtime, where), policy)
    return lengths.carried_out(steps, model.count_tokens)


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
    size = lengths.longest(texts)
    if policy == "pass" or size <= lengths.ALWAYS_FITS:
        return texts
    if not lengths.surely_fits(size, _known_window(runtime, where)):
        runtime.learn(*where, (await ainfo_of(model)).to_dict())
    steps = lengths.plan(texts, _known_window(runtime, where), policy)
    return await lengths.acarried_out(steps, model.count_tokens)


def _known_window(runtime: Runtime, where: tuple[Server, Wanted]) -> int:
    """Return the window of the model as far as it is known; 0 if it is not."""
    facts = runtime.facts(*where)
    return 0 if facts is None else int(facts.info["contextLength"])
