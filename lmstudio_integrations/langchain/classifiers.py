"""`LMStudioClassifier`: answers typed questions with probabilities in LangChain, over LM Studio's native protocol."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from langchain_core.decisions import BaseDecisionModel, ClassifierResponse
from langchain_core.decisions.types import Question, State
from langchain_core.messages import BaseMessage
from langchain_core.messages.block_translators.openai import convert_to_openai_image_block
from pydantic import ConfigDict, Field

from lmstudio_integrations._adapters.auxiliary_model_settings import AuxiliaryModelSettings
from lmstudio_integrations._adapters.field_types import DECLARED, MODEL_NAME, LlmLoadConfig, ModelName, Secret
from lmstudio_integrations._adapters.runtime import AdapterNames, Calling, UsedModel
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.predictions.decisions.decider import Decider
from lmstudio_integrations.client.predictions.decisions.deciding import DEFAULT_PERMUTATIONS
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.transport.flows import Flow, T, arun, run
from lmstudio_integrations.client.transport.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError, LMStudioWrongModelKindError
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors
from lmstudio_integrations.langchain._responses import PROVIDER
from lmstudio_integrations.langchain._settings import CORE_DESCRIPTIONS
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import LoadPolicy, ModelKind
from lmstudio_integrations.types.decisions import Decision

_ROLES = {"human": "user", "ai": "assistant"}


class LMStudioClassifier(AuxiliaryModelSettings, BaseDecisionModel):  # type: ignore[misc] # core wants a model
    """Answer typed questions about text, messages or JSON with probabilities, by any language model in LM Studio.

    Each question is one prediction of one token for each order of its options, with reasoning off; the state is
    processed once. `confidence` is the highest probability: how sure the model is, not how often it is right. If the
    model is a decision model, which the server says, all questions are one request to it, and `confidence` is its own;
    such a model may also see images. The object holds settings and opens no connection before its first call. You can
    copy it, pickle it, and share it between threads and event loops. The page `docs/langchain/classifier.md` goes on to
    routers and guards.

    Needs langchain-core 1.8 or newer.

    Setup:
        Install the extra `langchain`, from a clone or a wheel: `pip install "PATH[langchain]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from langchain_core.decisions import Noul

        from lmstudio_integrations.langchain import LMStudioClassifier

        classifier = LMStudioClassifier(model="qwen/qwen3-4b")
        urgent = Noul(instructions="Does this need an answer today?")
        request = {"state": "The pump is on fire!", "questions": {"urgent": urgent}}
        print(classifier.invoke(request).nouls["urgent"].noul)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioClassifier"), *AUXILIARY_ADAPTERS)
    _kind: ClassVar[ModelKind] = "llm"
    _framework_descriptions: ClassVar[Mapping[str, str]] = {"name": CORE_DESCRIPTIONS["name"]}

    if TYPE_CHECKING:
        api_token: Secret = DECLARED  # repeated: see `TypedDescriptor`
        model_name: ModelName = DECLARED
    else:
        model_name = MODEL_NAME
        """Another name of `model`."""

    load_config: LlmLoadConfig = None

    load_policy: LoadPolicy = Field(
        default="get_or_load",
        description="How the model is found or loaded; see `load_policy` of the language models. The default is "
        "`get_or_load`.",
    )

    permutations: Count = Field(
        default=DEFAULT_PERMUTATIONS,
        description="In how many orders a language model is asked the options of a question; the answers are averaged, "
        "because models prefer some letters. The default is 2.",
    )

    @property
    def _provider(self) -> str:
        return PROVIDER

    def load(self) -> Self:
        """Load the model if it is not loaded; return this object.

        Raises:
            LMStudioServerError: If the server fails.
        """
        with translating_errors():
            return super().load()

    async def aload(self) -> Self:
        """Load the model if it is not loaded; see `load`."""
        with translating_errors():
            return await super().aload()

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(run(self._with_model(ThreadMailbox, partial(self._decide, state, questions))))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(await arun(self._with_model(LoopMailbox, partial(self._decide, state, questions))))

    def _decide(self, state: State, questions: dict[str, Question], model: Model) -> Flow[Decision]:
        asked = _plain_questions(questions)
        if isinstance(model, Decider):
            return (yield from model.decide(_plain(state), asked))
        assert isinstance(model, LanguageModel), "there are two kinds of models that decide"
        return (yield from model.decide(_plain(state), asked, {"permutations": self.permutations}))

    def _with_model(self, mailbox_type: type[Mailbox], work: Callable[[Model], Flow[T]]) -> Flow[T]:
        """Return what a flow of the model returns. Whether it is a decision model, the server says, not its name."""
        try:
            return (yield from super()._with_model(mailbox_type, work))
        except LMStudioWrongModelKindError as error:
            if (error.display_data or {}).get("actualDomain") != "decision":
                raise
        used, calling = self._resolve_model(vars(self), "decision")
        return (yield from work(used.model(calling, mailbox_type)))

    def _resolve_model(self, values: Mapping[str, Any], kind: ModelKind | None = None) -> tuple[UsedModel, Calling]:
        """Return the model of a call: a decision model, once one of that name was found."""
        used, calling = super()._resolve_model(values, kind)
        found = used.model(calling, ThreadMailbox).server_models.model_key("decision", values["model"])
        return (used, calling) if kind or found is None else super()._resolve_model(values, "decision")


def _plain(value: Any) -> Any:
    """Return a state as JSON: messages at any depth become dicts with a role and a content, images have their URL."""
    if isinstance(value, BaseMessage):
        message: dict[str, Any] = {"role": _ROLES.get(value.type, value.type), "content": _plain(value.content)}
        if calls := getattr(value, "tool_calls", None):
            message["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in calls]
        return message
    if isinstance(value, Mapping) and value.get("type") == "image":
        try:
            return convert_to_openai_image_block(dict(value))
        except ValueError as error:
            raise LMStudioValueError(f"an image in the state cannot be read: {error}") from error
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _plain_questions(questions: Mapping[str, Any]) -> dict[str, Any]:
    """Return questions as dicts.

    Raises:
        LMStudioUnsupportedError: If one asks for a place in an image.
    """
    plain = {name: each if isinstance(each, Mapping) else each.model_dump() for name, each in questions.items()}
    for name, question in plain.items():
        if question.get("type") == "box":
            raise LMStudioUnsupportedError(
                f"the question {name!r} is a Box, a place in an image, which no model in LM Studio answers; ask a "
                "Noul, a Choice or a Score"
            )
    return plain


def _response(decision: Decision) -> ClassifierResponse:
    return ClassifierResponse.model_validate(
        {
            "model": decision.model,
            "answers": {name: asdict(answer) for name, answer in decision.answers.items()},
            "usage": {"input_tokens": decision.input_tokens, "output_tokens": decision.output_tokens},
        }
    )
