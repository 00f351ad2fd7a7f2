"""A language model as its handle uses it: predictions, the tool loop, chat templates, and the prefill of a prompt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.files.uploads import FileInput, PendingHistory, prepare_images
from lmstudio_integrations.client.models import chat_templates, queries
from lmstudio_integrations.client.models.chat_templates import TemplateOpts, Tools, template_flags
from lmstudio_integrations.client.models.reasoning import Messages, sent_messages
from lmstudio_integrations.client.models.state import KeptWarm
from lmstudio_integrations.client.predictions.plan import (
    Callbacks,
    History,
    Plan,
    PredictionParameters,
    PromptParameters,
    encode,
    plan_completion,
    plan_of,
    plan_response,
    prompt_settings,
    with_tools,
)
from lmstudio_integrations.client.predictions.prediction import PredictingModel, Prediction
from lmstudio_integrations.client.support.arguments import list_of, text_of
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.errors import LMStudioPromptTemplateError
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolInput, parse_tools
from lmstudio_integrations.types.models import ChatTemplateInfo, ContextUse

Prefix: TypeAlias = History | PendingHistory
"""The messages before the first question; a string is the system prompt."""

_QUESTION = WireHistory.of_prompt(".").messages
"""The shortest question, for chat templates that reject a prompt without one. Some omit an empty message."""


def prefix_of(prefix: Prefix | None) -> WireHistory | PendingHistory:
    """Return the messages of a prefix, in wire form; without any, a question, which every template takes.

    Raises:
        LMStudioValueError: If it is empty, or has another form.
    """
    if isinstance(prefix, str):
        content = [{"type": "text", "text": text_of(prefix, "the system prompt")}]
        return WireHistory([{"role": "system", "content": content}])
    if isinstance(prefix, PendingHistory):
        return prefix
    wire = WireHistory([]) if prefix is None else encode(prefix)
    return wire if wire.messages else with_question(wire)


def with_question(prefix: WireHistory | PendingHistory) -> WireHistory | PendingHistory:
    """Return a prefix with a question after it."""
    if isinstance(prefix, PendingHistory):
        encode_prefix = prefix.encode

        def encode_all(handles: Sequence[FileHandle | str]) -> WireHistory:
            return _with_question(encode_prefix(handles))

        return replace(prefix, encode=encode_all)
    return _with_question(prefix)


def _with_question(prefix: WireHistory) -> WireHistory:
    system_first = None if prefix.system_first is None else [*prefix.system_first, *_QUESTION]
    return prefix._replace(messages=[*prefix.messages, *_QUESTION], system_first=system_first)


def prefill_plan(prefix: WireHistory | PendingHistory, plan: Plan) -> Plan:
    """Return what processes a prefix: the plan of a question, but for one token, of which nothing is made."""
    progress = None if plan.callbacks is None else plan.callbacks.on_prompt_processing_progress
    return Plan(
        plan.settings.merged(LlmPredictionConfig(max_tokens=1)),
        replace(
            plan.options,
            check_response=False,
            tools_first=False,
            think_first=False,
            rescue_tool_calls=False,
            repair_tool_calls=False,
            required_tool_fallback=False,
            stop_on_repetition=False,
        ),
        prefix,
        timeouts=plan.timeouts,
        callbacks=None if progress is None else Callbacks(on_prompt_processing_progress=progress),
    )


class LanguageModel(PredictingModel):
    """A language model on one server."""

    def prepare_response(self, history: History | PendingHistory, parameters: PredictionParameters) -> Prediction:
        """Prepare the model's next message of a conversation."""
        return self.predict(plan_response(history, parameters, is_async=self.context.is_async))

    def prepare_completion(self, prompt: str, parameters: PredictionParameters) -> Prediction:
        """Prepare the continuation of a text."""
        return self.predict(plan_completion(prompt, parameters, is_async=self.context.is_async))

    def warm(
        self, prefix: History | None, parameters: PredictionParameters, tools: Iterable[ToolInput], *, keep_warm: bool
    ) -> Flow[None]:
        """Process what stands before the first question, with the tools of `act`; see `prefill`."""
        plan = plan_of(parameters, is_async=self.context.is_async)
        if listed := list_of(tools, "tools"):
            plan.settings = with_tools(plan.settings, parse_tools(listed).values())
        yield from self.prefill(prefix, plan, keep_warm=keep_warm)

    def prefill(self, prefix: Prefix | None, plan: Plan, *, keep_warm: bool = False) -> Flow[None]:
        """Process what stands before the first question, so that the server has it in its prompt cache.

        Some chat templates reject a prompt without a question; for those, a short one follows.

        Args:
            prefix: The messages, or the system prompt as a string; `None` are only tools.
            plan: The plan of the questions.
            keep_warm: Whether each new instance processes them again.
        """
        messages = prefix_of(prefix)
        try:
            yield from self.predict(prefill_plan(messages, plan)).to_end()
        except LMStudioPromptTemplateError as error:
            try:
                yield from self.predict(prefill_plan(with_question(messages), plan)).to_end()
            except LMStudioPromptTemplateError:
                raise error from None
        self.state.kept_warm = self.kept_warm(prefix, plan, self.state.reference) if keep_warm else None

    def kept_warm(self, prefix: Prefix | None, plan: Plan, reference: str | None = None) -> KeptWarm:
        """Return what processes a prefix, as it is now, again on each new instance; without the callback of this time.

        Args:
            prefix: As of `prefill`.
            plan: As of `prefill`.
            reference: The instance that has processed it.
        """
        messages, plan = prefix_of(prefix), replace(plan, callbacks=None)

        def process(context: ClientContext) -> Flow[None]:
            yield from LanguageModel(context, self.state).prefill(messages, plan, keep_warm=True)

        return KeptWarm(process, reference)

    def rerank(
        self, query: str, texts: Iterable[str], parameters: "lms.RerankParameters"
    ) -> "Flow[list[lms.RerankResult]]":
        """Return how relevant texts are to a query, best first."""
        with door("decisions and rerankers"):
            from lmstudio_integrations.client.predictions.decisions.reranking import Reranking  # noqa: PLC0415 - a leaf
        return (yield from Reranking(self, query, texts, parameters).run())

    def decide(
        self, state: object, questions: Mapping[str, Any], parameters: "lms.DecideParameters"
    ) -> "Flow[lms.Decision]":
        """Return the answers to questions about a state, with their probabilities."""
        with door("decisions and rerankers"):
            from lmstudio_integrations.client.predictions.decisions.deciding import Deciding  # noqa: PLC0415 - a leaf
        return (yield from Deciding(self, state, questions, parameters).run())

    def prepare_images(self, images: Sequence[FileInput], *, allow_private_hosts: bool) -> Flow[list[FileHandle]]:
        """Upload images for a conversation with this model; download those that are http or https URLs first."""
        return (
            yield from self.operation().run(
                lambda operation: prepare_images(operation, images, allow_private_hosts=allow_private_hosts)
            )
        )

    def apply_prompt_template(
        self, history: History, opts: TemplateOpts, tools: Tools, parameters: PromptParameters
    ) -> Flow[str]:
        """Return a conversation, with the tools, as the prompt that the model would get."""
        wire, settings = encode(history), prompt_settings(parameters, template_flags(opts, tools))
        return (
            yield from self.on_instance(
                lambda operation, instance: chat_templates.apply_prompt_template(operation, instance, wire, settings)
            )
        )

    def get_context_use(self, history: History, parameters: PromptParameters) -> Flow[ContextUse]:
        """Return how many tokens of the context window a conversation takes."""
        wire, settings = encode(history), prompt_settings(parameters)
        return (
            yield from self.on_instance(
                lambda operation, instance: chat_templates.get_context_use(operation, instance, wire, settings)
            )
        )

    def get_sent_messages(self, history: History, parameters: PromptParameters) -> Flow[Messages]:
        """Return the messages of a conversation as the model would get them, with thoughts as text or omitted."""
        wire, settings = encode(history), prompt_settings(parameters)
        sent = yield from self.on_instance(
            lambda operation, instance: sent_messages(
                operation, instance, wire.messages, settings.reasoning, settings.config
            )
        )
        return sent.messages

    def get_reasoning_replay(self) -> "Flow[lms.ReasoningReplay]":
        """Return what the model's chat template does with earlier thoughts; load the model if necessary."""
        with door("the measuring of chat templates"):
            from lmstudio_integrations.client.models.reasoning_replay import replay_of  # noqa: PLC0415 - a leaf
        return (yield from self.on_instance(replay_of))

    def get_base_fields(self) -> Flow[dict[str, Any]]:
        """Return the settings of a prediction that sends none, by their wire keys."""
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.get_base_config(operation, instance.specifier), reload=False
            )
        )

    def get_chat_template_info(self) -> Flow[ChatTemplateInfo]:
        """Return what the model's chat template does with conversations; load the model if necessary."""
        return (yield from self.on_instance(chat_templates.get_chat_template_info))
