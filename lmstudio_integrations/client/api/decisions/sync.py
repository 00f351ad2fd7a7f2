# Written by `python -m tools.sync_client` from asynchronous.py.
"""Decision models for threads: `client.decision` of an `Client`.

`python -m tools.sync_client` writes `sync.py`, which is the same for threads, from `asynchronous.py`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from typing_extensions import Unpack, override

from lmstudio_integrations.client.api.sync import DownloadedModel, Handle, ModelNamespace
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.predictions.decisions.decider import Decider
from lmstudio_integrations.client.predictions.decisions.deciding import DecideParameters
from lmstudio_integrations.types.config import DecisionLoadModelConfig, ModelKind
from lmstudio_integrations.types.decisions import Decision, Question
from lmstudio_integrations.types.models import DecisionModelInfo, DecisionModelInstanceInfo


class DecisionModel(Handle[Decider]):
    """A decision model: it answers typed questions, and writes no text."""

    def decide(
        self,
        state: object,
        questions: Mapping[str, Question | Mapping[str, Any]],
        **parameters: Unpack[DecideParameters],
    ) -> Decision:
        """Return the answers to questions about a state, with the probabilities that the server reports.

        All questions are one HTTP request, which needs httpx. Loads the model if necessary.

        Args:
            state: As that of a language model, see `LLM.decide`. Messages may have `image_url` parts with data URLs, if
                the model sees images.
            questions: The questions by their ids: `Noul`, `Choice`, `Score`, or dicts with the same members.
            parameters: Those of language models have no effect here, so one with another value than `None` is an error,
                except `permutations=1`.

        Raises:
            LMStudioProtocolError: If an answer of the server does not fit its question.
            LMStudioServerError: If the server rejects the state or a question.
            LMStudioUnsupportedError: If the model does not see images, the server does not answer such questions, or
                httpx is not installed.
            LMStudioValueError: If an argument is invalid.
        """
        return run(self._model.decide(state, questions, parameters))

    def get_info(self, *, load: bool = False) -> DecisionModelInstanceInfo:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return cast("DecisionModelInstanceInfo", run(self._model.get_info(load=load)))

    def get_load_config(self) -> DecisionLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return DecisionLoadModelConfig.from_fields(run(self._model.get_load_fields()))


class DownloadedDecisionModel(DownloadedModel[DecisionModel, DecisionModelInfo]):
    """A decision model on the server's disk."""


class DecisionNamespace(ModelNamespace[DecisionModel, DownloadedDecisionModel]):
    """The decision models: `client.decision`."""

    _kind: ClassVar[ModelKind] = "decision"
    _downloaded = DownloadedDecisionModel

    @override
    def _handle_for(self, state: ModelState) -> DecisionModel:
        return DecisionModel(Decider(self._context, state))
