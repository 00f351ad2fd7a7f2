"""`LMStudioClassifier`: answers typed questions with probabilities in LangChain, over LM Studio's native protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from langchain_core.decisions import BaseDecisionModel, ClassifierResponse
from langchain_core.decisions.types import ClassifierRequest, Question, State
from langchain_core.messages import BaseMessage, ChatMessage
from langchain_core.messages.block_translators.openai import convert_to_openai_image_block
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict, override

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_checks import ALIASES
from lmstudio_integrations._adapters.settings_decision import DecisionSettings
from lmstudio_integrations._support.suggestions import explain_unknown_setting
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.langchain import _batches
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors
from lmstudio_integrations.langchain._responses import PROVIDER
from lmstudio_integrations.langchain._settings import CORE_DESCRIPTIONS
from lmstudio_integrations.types.decisions import Decision, check_answered

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
"""The roles of messages by their types in core, where these are others."""


class _Input(TypedDict):
    state: Any
    questions: Mapping[str, Question]


class LMStudioClassifier(DecisionSettings, BaseDecisionModel):  # type: ignore[misc] # core wants a model
    """Answer typed questions about text, messages or JSON with probabilities, by any language model in LM Studio.

    Each question is one prediction of one token for each order of its options, with reasoning off; the state is
    processed once. `confidence` is the highest probability: how sure the model is, not how often it is right. If the
    model is a decision model, which the server says, all questions are one request to it, and `confidence` is its own;
    such a model may also see images. The object holds settings, described in `model_fields`, and opens no connection
    before its first call. You can copy it, pickle it, and share it between threads and event loops. The page
    `docs/langchain/classifier.md` goes on to routers and guards.

    Needs langchain-core 1.8 or newer.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, or
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
    _translating = translating_errors
    _framework_descriptions: ClassVar[Mapping[str, str]] = {"name": CORE_DESCRIPTIONS["name"]}

    @property
    @override
    def InputType(self) -> Any:
        """The type of the input. The one of core refers to itself, so that core makes no schema of it."""
        return _Input

    @property
    def _provider(self) -> str:
        return PROVIDER

    if not TYPE_CHECKING:  # core's methods, whose types are those of runnables
        batch = _batches.batch
        batch_as_completed = _batches.batch_as_completed

        def bind(self, **kwargs: Any) -> Any:
            """Bind nothing: no call has settings of its own.

            Raises:
                LMStudioValueError: If a value is not `None`.
            """
            with translating_errors():
                self._check_call(kwargs)
            return super().bind()

    @override
    def invoke(
        self, input: ClassifierRequest, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ClassifierResponse:
        """Return the answers to questions about a state.

        Args:
            input: The state and the questions by their ids.
            config: As for every runnable.
            kwargs: None but `None`; settings belong to the classifier.

        Raises:
            LMStudioValueError: If the input is invalid, or there are further arguments.
        """
        with translating_errors():
            self._check_call(kwargs)
            request = _checked(input)
        return super().invoke(request, config)

    @override
    async def ainvoke(
        self, input: ClassifierRequest, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ClassifierResponse:
        """Return the answers to questions about a state; see `invoke`."""
        with translating_errors():
            self._check_call(kwargs)
            request = _checked(input)
        return await super().ainvoke(request, config)

    def _check_call(self, given: Mapping[str, Any]) -> None:
        """Check that a call has no settings.

        Raises:
            LMStudioValueError: If it has one; the message says where it belongs.
        """
        for name, value in given.items():
            if value is not None:
                fields, owner = type(self).model_fields, "LMStudioClassifier"
                remedy = explain_unknown_setting(name, fields, owner=owner)
                if ALIASES.get(name, name) in fields:
                    remedy = f"write {owner}({name}={shown(value)})"
                raise LMStudioValueError(f"a call of a classifier has no settings; got {name}={shown(value)}; {remedy}")

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(self._decide(_plain_state(state), _without_boxes(questions)))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        with translating_errors():
            return _response(await self._adecide(_plain_state(state), _without_boxes(questions)))


def _checked(given: object) -> ClassifierRequest:
    """Return the input of a call.

    Raises:
        LMStudioValueError: If it lacks a state or questions.
    """
    if not is_mapping(given) or not {"state", "questions"} <= given.keys():
        raise LMStudioValueError(f"the input must be {{'state': ..., 'questions': {{...}}}}; got {shown(given)}")
    if not is_mapping(given["questions"]) or not given["questions"]:
        raise LMStudioValueError(
            f"questions must be an object with at least one question by its id; got {shown(given['questions'])}"
        )
    return cast("ClassifierRequest", given)


def _plain_state(state: Any) -> Any:
    """Return a state with messages as dicts; see `_plain`.

    Raises:
        LMStudioValueError: If it cannot be read, for example because it contains itself.
    """
    try:
        return _plain(state)
    except RecursionError:
        raise LMStudioValueError("the state is nested too deeply, or contains itself") from None
    except PydanticSerializationError as error:
        raise LMStudioValueError(f"the state must be text or JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Return a state in which messages at any depth are dicts with a role and a content, and images have their URL."""
    if isinstance(value, BaseMessage):
        kind = value.role if isinstance(value, ChatMessage) else value.type
        return _message(kind, value.content, getattr(value, "tool_calls", None))
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(serialize_as_any=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if is_mapping(value):
        return _plain_object(value)
    return [_plain(each) for each in cast("Sequence[Any]", value)] if isinstance(value, list | tuple) else value


def _plain_object(value: Mapping[Any, Any]) -> dict[Any, Any]:
    kind = value.get("type")
    if kind == "image":
        try:
            return convert_to_openai_image_block({str(name): each for name, each in value.items()})
        except ValueError as error:
            raise LMStudioValueError(f"an image in the state cannot be read: {error}") from error
    if isinstance(kind, str) and kind in _ROLES and "content" in value:  # a message that was dumped
        return _message(kind, value["content"], value.get("tool_calls"))
    return {name: _plain(each) for name, each in value.items()}


def _message(kind: str, content: Any, calls: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": _ROLES.get(kind, kind), "content": _plain(content)}
    if calls:
        message["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in calls]
    return message


def _without_boxes(questions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return questions.

    Raises:
        LMStudioUnsupportedError: If one asks for a place in an image.
    """
    for name, question in questions.items():
        kind = question.get("type") if is_mapping(question) else getattr(question, "type", None)
        if kind == "box":
            raise LMStudioUnsupportedError(
                f"the question {name!r} is a Box, a place in an image, which no model in LM Studio answers; ask a "
                "Noul, a Choice or a Score"
            )
    return questions


def _response(decision: Decision) -> ClassifierResponse:
    check_answered(decision)  # an answer of core cannot say that it means nothing
    return ClassifierResponse.model_validate(
        {
            "model": decision.model,
            "answers": {name: asdict(answer) for name, answer in decision.answers.items()},
            "usage": {"input_tokens": decision.input_tokens, "output_tokens": decision.output_tokens},
        }
    )
