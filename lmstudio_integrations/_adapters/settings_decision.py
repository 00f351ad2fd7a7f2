"""How to rerank or decide, as both frameworks share it, and the calls."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from lmstudio_integrations._adapters.request_model import Calling, UsedModel
from lmstudio_integrations._adapters.settings import AuxiliaryModelSettings
from lmstudio_integrations._adapters.settings_types import MODEL_NAME, LlmLoadConfig
from lmstudio_integrations.client.concurrency.flows import Flow, T, arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.predictions.decisions.decider import decide
from lmstudio_integrations.client.predictions.decisions.deciding import DEFAULT_PERMUTATIONS
from lmstudio_integrations.client.predictions.decisions.reranking import RerankParameters
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioWrongModelKindError
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.decisions import Decision
from lmstudio_integrations.types.reranking import OnRerankError, RerankResult, RerankTemplate


class _LanguageModelSettings(AuxiliaryModelSettings):
    """How to load a language model that works beside a chat model."""

    _kind: ClassVar[ModelKind] = "llm"

    load_config: LlmLoadConfig = None

    model_name = MODEL_NAME
    """Another name of `model`."""


class RerankerSettings(_LanguageModelSettings):
    """How to rerank."""

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
        return self._checked(run(self._model(LanguageModel).rerank(query, texts, self._parameters())))

    async def _arerank(self, query: str, texts: Sequence[str]) -> list[RerankResult]:
        return self._checked(
            await arun(self._model(LanguageModel, LoopMailbox).rerank(query, texts, self._parameters()))
        )

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


class DecisionSettings(_LanguageModelSettings):
    """How to answer typed questions, with a language model or a decision model."""

    permutations: Count = Field(
        default=DEFAULT_PERMUTATIONS,
        description="In how many orders a language model is asked the options of a question, each of them one "
        "prediction; the answers are averaged, because models prefer some letters. The default is 2.",
    )

    def _decide(self, state: object, questions: Mapping[str, Any]) -> Decision:
        return run(self._with_model(ThreadMailbox, partial(self._ask, state, questions)))

    async def _adecide(self, state: object, questions: Mapping[str, Any]) -> Decision:
        return await arun(self._with_model(LoopMailbox, partial(self._ask, state, questions)))

    def _ask(self, state: object, questions: Mapping[str, Any], model: Model) -> Flow[Decision]:
        return decide(model, state, questions, self.permutations)

    def _with_model(self, mailbox_type: type[Mailbox], work: Callable[[Model], Flow[T]]) -> Flow[T]:
        """Return what a flow of the model returns.

        Whether it is a decision model, the server says, not its name. Without a name, a loaded decision model is
        preferred to a language model.
        """
        if self.model is None and (yield from self._has_loaded_decision_model(mailbox_type)):
            used, calling = self._resolve_model(vars(self), "decision")
            return (yield from work(used.model(calling, mailbox_type)))
        try:
            return (yield from super()._with_model(mailbox_type, work))
        except LMStudioWrongModelKindError as error:
            if (error.display_data or {}).get("actualDomain") != "decision":
                raise
        used, calling = self._resolve_model(vars(self), "decision")
        return (yield from work(used.model(calling, mailbox_type)))

    def _unload(self, mailbox_type: type[Mailbox]) -> Flow[None]:
        yield from super()._unload(mailbox_type)
        if (yield from self._has_loaded_decision_model(mailbox_type)):
            used, calling = self._resolve_model(vars(self), "decision")
            yield from used.model(calling, mailbox_type).unload_if_loaded()

    def _has_loaded_decision_model(self, mailbox_type: type[Mailbox]) -> Flow[bool]:
        return (yield from self._model(Model, mailbox_type).operation(reload=False).run(_is_decision_model_loaded))

    def _resolve_model(self, values: Mapping[str, Any], kind: ModelKind | None = None) -> tuple[UsedModel, Calling]:
        """Return the model of a call: a decision model, once one of that name was found."""
        used, calling = super()._resolve_model(values, kind)
        server_models = used.model(calling, ThreadMailbox).server_models
        if kind is None and server_models.model_key("decision", values["model"]) is not None:
            return super()._resolve_model(values, "decision")
        return used, calling


def _is_decision_model_loaded(operation: Operation) -> Flow[bool]:
    kinds = yield from queries.kinds(operation)
    return "decision" in kinds and bool((yield from queries.list_wire_infos(operation, "decision")))
