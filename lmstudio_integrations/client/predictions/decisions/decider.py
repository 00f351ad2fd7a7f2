"""A decision model as its handle uses it: one HTTP request answers all questions about a state.

`decide` asks a model of either kind, for callers that take both.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import Instance, reference_of
from lmstudio_integrations.client.predictions.decisions.answers import answer_in
from lmstudio_integrations.client.predictions.decisions.deciding import DecideParameters, Deciding
from lmstudio_integrations.client.predictions.decisions.states import questions_of, state_of
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.client.support.arguments import check_names
from lmstudio_integrations.client.transport.operation import Operation, decode_errors
from lmstudio_integrations.errors import (
    LMStudioModelNotFoundError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.protocol.errors import details_of
from lmstudio_integrations.types.decisions import Decision, Noul, Question


class Decider(Model):
    """A decision model on one server."""

    def decide(
        self, state: object, questions: Mapping[str, Any], parameters: DecideParameters | None = None
    ) -> Flow[Decision]:
        """Return the answers to questions about a state, with their probabilities.

        Raises:
            LMStudioUnsupportedError: If httpx is not installed.
            LMStudioValueError: If an argument is invalid.
        """
        _check(parameters or {})
        asked = questions_of(questions)
        # A label may have null as its description; what a yes or no means may not.
        wire = {name: each.model_dump(exclude_none=isinstance(each, Noul)) for name, each in asked.items()}
        body: dict[str, Any] = {"state": state_of(state), "questions": wire}
        return (yield from self.on_instance(partial(self._ask, asked, body)))

    def _ask(
        self, asked: Mapping[str, Question], body: Mapping[str, Any], operation: Operation, instance: Instance
    ) -> Flow[Decision]:
        try:
            from lmstudio_integrations.client.predictions.decisions.systemone import (  # noqa: PLC0415 - httpx: an extra
                UPDATE,
                post,
            )
        except ModuleNotFoundError as error:
            raise LMStudioUnsupportedError(
                f"decision models are asked over HTTP, which needs {error.name}; run: "
                f"{package_command(str(error.name))}"
            ) from error
        context, request = operation.context, {"model": instance.identifier, **body}
        remaining = operation.remaining_time
        try:
            found: dict[str, Any] = yield from context.run_task(
                partial(post, context.target, operation.timeouts, remaining, request)
            )
        except LMStudioModelNotFoundError as error:
            loaded = yield from queries.list_wire_infos(operation, self.state.kind)
            if all(reference_of(info) != instance.reference for info in loaded):
                raise
            raise LMStudioUnsupportedError(
                f"{error}; the model is loaded, so the server answers no questions: {UPDATE}", **details_of(error)
            ) from None
        with decode_errors("Decision"):
            answers, usage = found["answers"], found.get("usage")
            counts = usage if is_object(usage) else {}
            tokens = [each if is_count(each := counts.get(f"{name}_tokens")) else 0 for name in ("input", "output")]
            in_order = {name: answer_in(answers[name], name, question) for name, question in asked.items()}
            return Decision(self.model_key or instance.identifier, in_order, *tokens)


def _check(parameters: DecideParameters) -> None:
    """Check the keyword arguments of `decide`, most of which only language models have.

    Raises:
        LMStudioValueError: If one has an effect there.
    """
    check_names(parameters, DecideParameters.__annotations__)
    for name, value in parameters.items():
        if value is not None and (name, value) != ("permutations", 1):
            raise LMStudioValueError(
                f"{name} is for language models: a decision model answers all questions in one request, with the "
                f"options in one order; leave out {name}={shown(value)}"
            )


def decide(model: Model, state: object, questions: Mapping[str, Any], permutations: int) -> Flow[Decision]:
    """Return the answers of a model of either kind; `permutations` are those of a language model.

    Callers check with `is_answered` whether the model would have said them.
    """
    if isinstance(model, Decider):
        return (yield from model.decide(state, questions))
    assert isinstance(model, PredictingModel), "there are two kinds of models that decide"
    parameters: DecideParameters = {"permutations": permutations}
    return (yield from Deciding(model, state, questions, parameters, marks_unanswered=True).run())
