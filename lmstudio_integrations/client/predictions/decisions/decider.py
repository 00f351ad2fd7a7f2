"""A decision model as its handle uses it: one HTTP request answers all questions about a state.

`decide` asks a model of either kind, for callers that take both.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.decisions.deciding import Deciding
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation, decode_errors
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.types.decisions import Answer, Decision, Noul, parse_questions

_ANSWERS: TypeAdapter[dict[str, Answer]] = TypeAdapter(dict[str, Annotated[Answer, Field(discriminator="type")]])


class Decider(Model):
    """A decision model on one server."""

    def decide(self, state: object, questions: Mapping[str, Any]) -> Flow[Decision]:
        """Return the answers to questions about a state, with their probabilities.

        Raises:
            LMStudioUnsupportedError: If httpx is not installed.
            LMStudioValueError: If an argument is invalid.
        """
        if not state or not isinstance(state, str | dict | list):
            raise LMStudioValueError(f"the state must be text, an object or a list, and not empty; got {state!r}")
        # A label may have null as its description; what a yes or no means may not.
        asked = {
            name: each.model_dump(exclude_none=isinstance(each, Noul))
            for name, each in parse_questions(questions).items()
        }
        body: dict[str, Any] = {"state": state, "questions": asked}
        try:
            dumps(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise LMStudioValueError(f"a state and questions must be text or JSON: {error}") from error
        return (yield from self.on_instance(partial(self._ask, body)))

    def _ask(self, body: Mapping[str, Any], operation: Operation, instance: Instance) -> Flow[Decision]:
        try:
            from lmstudio_integrations.client.predictions.decisions.systemone import post  # noqa: PLC0415 - httpx: an extra
        except ModuleNotFoundError as error:
            raise LMStudioUnsupportedError(
                f"decision models are asked over HTTP, which needs {error.name}; run: "
                f"{package_command(str(error.name))}"
            ) from error
        context, request = operation.context, {"model": instance.identifier, **body}
        remaining = operation.remaining_time
        found: dict[str, Any] = yield from context.run_task(
            partial(post, context.target, operation.timeouts, remaining, request)
        )
        with decode_errors("Decision"):
            answers, usage = _ANSWERS.validate_python(found["answers"]), found.get("usage", {})
            in_order = {name: answers[name] for name in body["questions"]}
            tokens: list[int] = [usage.get(f"{name}_tokens", 0) for name in ("input", "output")]
            return Decision(self.model_key or instance.identifier, in_order, *tokens)


def decide(model: Model, state: object, questions: Mapping[str, Any], permutations: int) -> Flow[Decision]:
    """Return the answers of a model of either kind; `permutations` are those of a language model."""
    if isinstance(model, Decider):
        return (yield from model.decide(state, questions))
    assert isinstance(model, PredictingModel), "there are two kinds of models that decide"
    return (yield from Deciding(model, state, questions, {"permutations": permutations}).run())
