"""`LMStudioClassifier`: answers typed questions with probabilities in LangChain, over LM Studio's native protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from langchain_core.decisions import BaseDecisionModel, ClassifierResponse
from langchain_core.decisions.types import Question, State
from langchain_core.messages import BaseMessage
from langchain_core.messages.block_translators.openai import convert_to_openai_image_block
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict

from lmstudio_integrations._adapters.auxiliary_model_settings import DecisionSettings
from lmstudio_integrations._adapters.field_types import DECLARED, ModelName, Secret
from lmstudio_integrations._adapters.runtime import AdapterNames
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.langchain._batches import batch, batch_as_completed
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors
from lmstudio_integrations.langchain._responses import PROVIDER
from lmstudio_integrations.langchain._settings import CORE_DESCRIPTIONS
from lmstudio_integrations.types.decisions import Decision

_ROLES = {"human": "user", "ai": "assistant"}


class LMStudioClassifier(DecisionSettings, BaseDecisionModel):  # type: ignore[misc] # core wants a model
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
        state = "The pump is on fire!"
        response = classifier.invoke({"state": state, "questions": {"urgent": urgent}})
        print(response.nouls["urgent"].noul)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioClassifier"), *AUXILIARY_ADAPTERS)
    _framework_descriptions: ClassVar[Mapping[str, str]] = {"name": CORE_DESCRIPTIONS["name"]}

    if TYPE_CHECKING:
        api_token: Secret = DECLARED  # repeated: see `TypedDescriptor`
        model_name: ModelName = DECLARED

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

    def batch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ClassifierResponse]:
        """Answer the questions of several inputs."""
        return batch(self, inputs, config, return_exceptions=return_exceptions, kwargs=kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the index and the answers of each input, as they finish."""
        return batch_as_completed(self, inputs, config, return_exceptions=return_exceptions, kwargs=kwargs)

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(self._decide(_plain(state), _plain_questions(questions)))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(await self._adecide(_plain(state), _plain_questions(questions)))


def _plain(value: Any) -> Any:
    """Return a state as JSON: messages at any depth become dicts with a role and a content, images have their URL."""
    if isinstance(value, BaseMessage):
        message: dict[str, Any] = {"role": _ROLES.get(value.type, value.type), "content": _plain(value.content)}
        if calls := getattr(value, "tool_calls", None):
            message["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in calls]
        return message
    if is_mapping(value) and value.get("type") == "image":
        try:
            return convert_to_openai_image_block({str(name): each for name, each in value.items()})
        except ValueError as error:
            raise LMStudioValueError(f"an image in the state cannot be read: {error}") from error
    if is_mapping(value):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in cast("Sequence[Any]", value)] if isinstance(value, list | tuple) else value


def _plain_questions(questions: Mapping[str, Any]) -> dict[str, Any]:
    """Return questions as dicts.

    Raises:
        LMStudioUnsupportedError: If one asks for a place in an image.
    """
    plain: dict[str, Any] = {
        name: each.model_dump() if isinstance(each, BaseModel) else each for name, each in questions.items()
    }
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
