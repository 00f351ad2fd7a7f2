"""How to rerank: the fields that the rerankers of both frameworks share, and their calls."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from lmstudio_integrations._adapters.auxiliary_model_settings import AuxiliaryModelSettings
from lmstudio_integrations._adapters.field_types import DECLARED, MODEL_NAME, LlmLoadConfig, ModelName
from lmstudio_integrations.client.api.asynchronous import AsyncLLM
from lmstudio_integrations.client.api.sync import LLM
from lmstudio_integrations.client.predictions.reranking import RerankParameters
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.reranking import OnRerankError, RerankResult, RerankTemplate


class RerankerSettings(AuxiliaryModelSettings):
    """How to rerank."""

    _kind: ClassVar[ModelKind] = "llm"

    load_config: LlmLoadConfig = None

    if TYPE_CHECKING:
        model_name: ModelName = DECLARED
    else:
        model_name = MODEL_NAME
        """Another name of `model`."""

    top_n: Count | None = Field(
        default=None,
        description="How many to return, the best ones. By default all.",
    )

    instruction: str | None = Field(
        default=None,
        description="What relevant means, as a sentence: `Given a question, find the rule that answers it`. If unset, "
        "that of the template applies.",
    )

    template: RerankTemplate | str | None = Field(
        default=None,
        description="The prompt, for rerankers of other families than Qwen3-Reranker: a `RerankTemplate`, or its "
        "`prompt` alone. If unset, models without a family are asked through their chat template.",
    )

    max_concurrency: Count | None = Field(
        default=None,
        description="How many texts a call scores at once. By default as many as the model's hosts run.",
    )

    errors: OnRerankError = Field(
        default="raise",
        description="What becomes of a text whose call fails: `raise` (the default) fails all, and `mark` puts it "
        "last, without a score.",
    )

    def _rerank(self, query: str, texts: Sequence[str]) -> list[RerankResult]:
        return self._checked(self._handle(LLM).rerank(query, texts, **self._parameters()))

    async def _arerank(self, query: str, texts: Sequence[str]) -> list[RerankResult]:
        return self._checked(await self._async_handle(AsyncLLM).rerank(query, texts, **self._parameters()))

    def _checked(self, results: list[RerankResult]) -> list[RerankResult]:
        """Return results; warn once if some texts were too long, because the frameworks' results do not show it."""
        if any(result.truncated for result in results):
            self._runtime.warn_once(
                "truncated",
                "some texts are too long for the model, and only their beginning was scored; lower the text splitter's "
                "chunk size, or load the model with a larger context_length",
            )
        return results

    def _parameters(self) -> RerankParameters:
        return {
            "instruction": self.instruction,
            "top_n": self.top_n,
            "template": self.template,
            "max_concurrency": self.max_concurrency,
            "errors": self.errors,
        }
