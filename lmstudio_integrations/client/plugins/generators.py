"""Generator plugins: they respond in place of a model (docs/protocol.md#generators).

`api/plugins.py` has their handles. A generator is a language model without settings: nothing is loaded, and nothing but
the conversation and the tools is sent.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.client.files.uploads import with_valid_files
from lmstudio_integrations.client.models.state import Instance, ModelState
from lmstudio_integrations.client.plugins.sessions import PluginSpec
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.predictions.requests import (
    History,
    PredictionParameters,
    RequestMaker,
    UploadedHistory,
)
from lmstudio_integrations.client.predictions.required_call import may_call, offered_tools, requires_call
from lmstudio_integrations.client.predictions.tool_loop.act import Act, ActParameters
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Channel, Namespace, channel
from lmstudio_integrations.protocol.requests import GenerateWithGenerator
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import ToolInput

_FOR_MODELS = ("response_format", "preset", "check_context", "send_reasoning", "keep_reasoning", "think_first")
"""Parameters of predictions that need a model, besides its settings."""

_FOR_TOOLS = {"raw_tools", "tool_choice"}
"""The settings that a generator has, too."""


class GeneratorRequest:
    """Requests the next message of a conversation from a generator.

    Args:
        spec: The plugin.
        history: The conversation.
        settings: The settings, of which only the tools are sent.
    """

    namespace: Namespace = "plugins"
    endpoint: Channel = channel("plugins", "generateWithGenerator")

    def __init__(self, spec: PluginSpec, history: UploadedHistory, settings: LlmPredictionConfig) -> None:
        self._spec = spec
        self._history = history
        self._tools = offered_tools(settings) if may_call(settings) else []

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload the images."""
        yield from self._history.upload(operation)

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:  # noqa: ARG002 - there is none
        """Return the parameter of the request."""
        history = self._history.wire
        if history.files:
            history = yield from with_valid_files(operation, history)
        return GenerateWithGenerator(
            **self._spec.request,
            tools=self._tools,
            history=history.to_dict(),
        )


class GeneratorModel(LanguageModel):
    """A generator plugin in the place of a model.

    Args:
        context: The server, and how it is called.
        spec: The plugin.
    """

    def __init__(self, context: ClientContext, spec: PluginSpec) -> None:
        # The instance is known without a call, so that nothing asks the server for a model of this name.
        instance = Instance(spec.identifier)
        super().__init__(context, ModelState("llm", spec.identifier, policy="require_loaded", instance=instance))
        self._spec = spec

    @property
    def request(self) -> RequestMaker:  # type: ignore[override]
        """Makes the request of the next message of a conversation."""
        return partial(GeneratorRequest, self._spec)

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> Self:
        """Return the same generator, called in another way."""
        return type(self)(change(self.context), self._spec)

    def prepare_response(self, history: History | PendingHistory, parameters: PredictionParameters) -> Prediction:
        """Prepare the next message of a conversation.

        Raises:
            LMStudioValueError: If there are settings that only models have.
        """
        self._check(parameters)
        return super().prepare_response(history, parameters)

    def prepare_act(self, chat: History, tools: Iterable[ToolInput], parameters: ActParameters) -> Act:
        """Prepare a tool loop.

        Raises:
            LMStudioValueError: If there are settings that only models have.
        """
        self._check(parameters)
        return super().prepare_act(chat, tools, parameters)

    def _check(self, parameters: Mapping[str, Any]) -> None:
        """Reject what only models have, all of it in one error."""
        settings = LlmPredictionConfig.parse(parameters.get("config"))
        names = [name for name in settings.model_fields_set - _FOR_TOOLS if getattr(settings, name) is not None]
        names += [name for name in _FOR_MODELS if parameters.get(name) not in (None, False)]
        if requires_call(settings):
            names.append("required tool_choice")
        if names:
            raise LMStudioValueError(
                f"the generator plugin {self._spec.identifier!r} accepts a conversation and tools, but not "
                f"{', '.join(sorted(names))}; its own settings are its plugin_config"
            )
