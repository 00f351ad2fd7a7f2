"""The questions of decision models, over HTTP (docs/protocol.md#decisions)."""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.request_log import DecisionRecord
from lmstudio_integrations.emulator.server.context import ServerState
from lmstudio_integrations.emulator.server.posts import HttpError, bad_request
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.decisions import parse_questions
from lmstudio_integrations.types.models import by_identifier

Json = dict[str, Any]

_STATUS: Mapping[str, tuple[HTTPStatus, str]] = {
    "generic.noModelMatchingQuery": (HTTPStatus.NOT_FOUND, "not_found_error"),
    "generic.domainMismatch": (HTTPStatus.BAD_REQUEST, "invalid_request_error"),
    "generic.engineDoesNotSupportFeature": (HTTPStatus.NOT_IMPLEMENTED, "not_supported_error"),
}
"""The status and type of an error, by its code on the wire."""


async def systemone(state: ServerState, body: Any) -> Json:
    """Answer the questions about a state.

    Raises:
        HttpError: If the request is invalid, or it fails.
    """
    if not is_object(body) or not isinstance(body.get("model"), str):
        raise bad_request("model must be the identifier of a loaded decision model")
    if not isinstance(body.get("state"), str | list | dict):
        raise bad_request("state must be a string, an object or an array")
    try:
        questions = parse_questions(body.get("questions"))
        specifier = by_identifier(body["model"])
    except LMStudioValueError as error:
        raise bad_request(str(error)) from error
    request = {**body, "questions": {name: each.model_dump() for name, each in questions.items()}}
    try:
        instance = state.registry.find("decision", specifier)
        given: object = body.get("images") or []
        images = [*_images(body["state"]), *(given if is_list(given) else [None])]
        _check_images(images, sees=bool(instance.describe().get("hasVisionAdapter")))
        record = DecisionRecord(model=instance.identifier, state=body["state"], questions=body["questions"])
        entry = state.request_log.decisions.add(record)
        with CancelScope() as scope:
            async with instance.use(scope, "processingPrompt"):
                decided: Json = await instance.model.decide(request)
                entry.update(answers=decided["answers"])
                return {**decided, "model": instance.identifier}
    except WireError as error:
        code, of_engine = str((error.display_data or {}).get("code")), error.error_data or {}
        unknown = (of_engine.get("code", HTTPStatus.INTERNAL_SERVER_ERROR), of_engine.get("type", "server_error"))
        status, kind = _STATUS.get(code, unknown)
        if error.status == HTTPStatus.OK:  # as LM Studio reports an unknown path
            return {"error": str(error)}
        raise HttpError(HTTPStatus(error.status or status), kind, str(error)) from error
    raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "Model is unloaded.")


def _check_images(images: list[Any], *, sees: bool) -> None:
    """Check images of a request by their URLs.

    Raises:
        HttpError: If one is not in the request itself, or the model does not see them.
    """
    if not all(isinstance(url, str) and url.startswith("data:image/") for url in images):
        raise bad_request("images must be inline base64 data URLs")
    if images and not sees:
        message = "The model does not support image input for decisions"
        raise HttpError(HTTPStatus.NOT_IMPLEMENTED, "not_supported_error", message)


def _images(content: Any) -> Iterator[Any]:
    """Yield the URLs of the images in a state."""
    if is_object(content) and is_object(content.get("image_url")):
        yield content["image_url"].get("url")
    for each in content.values() if is_object(content) else content if is_list(content) else ():
        yield from _images(each)


async def decisions(state: ServerState, body: Any) -> Json:
    """Answer the questions in OpenAI's form, which is another one for the same.

    Raises:
        HttpError: If the request is invalid, or it fails.
    """
    asked = body.get("questions") if is_object(body) else None
    if not is_list(asked) or not asked:
        raise bad_request("questions must be an array of at least one question")
    questions = {str(number): _to_systemone(number, question) for number, question in enumerate(asked)}
    decided = await systemone(state, {"model": body.get("model"), "state": body.get("input"), "questions": questions})
    if "error" in decided:
        return decided
    answers = [_from_systemone(each, decided["answers"][name]) for name, each in zip(questions, asked, strict=True)]
    read, written = decided["usage"]["input_tokens"], decided["usage"]["output_tokens"]
    usage = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
    return {"model": decided["model"], "answers": answers, "usage": usage}


def _to_systemone(number: int, question: Any) -> Json:
    """Return a question in the form of `/v1/systemone`.

    Raises:
        HttpError: If it has no such form.
    """
    try:
        instructions = question["instructions"]
        match question["type"]:
            case "predicate":
                return {"type": "noul", "instructions": instructions}
            case "choice":
                choices = question["choices"]
                criteria: Any = {str(each["value"]): each.get("description") for each in choices}
                if len(criteria) < len(choices):
                    raise bad_request(f"questions.{number}: two of its choices have the same value")
                return {"type": "choice", "instructions": instructions, "criteria": criteria}
            case "score":
                criteria = [each.get("description") or each["label"] for each in question["levels"]]
                return {"type": "score", "instructions": instructions, "criteria": criteria}
            case other:
                raise bad_request(f"questions.{number}: type must be predicate, choice or score, not {other!r}")
    except (LookupError, TypeError, AttributeError) as error:
        raise bad_request(f"questions.{number}: it is incomplete: {error!r}") from error


def _from_systemone(question: Json, answer: Json) -> Json:
    made = {"type": question["type"], "name": question.get("name")}
    if question["type"] == "predicate":
        return made | {"probability": answer["noul"]}
    made["confidence"] = answer["confidence"]
    probabilities: Sequence[float] = list(answer["probabilities"].values())
    if question["type"] == "choice":
        values = [each["value"] for each in question["choices"]]
        chosen = list(answer["probabilities"]).index(answer["choice"])
        listed = [{"value": value, "probability": p} for value, p in zip(values, probabilities, strict=True)]
        return made | {"choice": values[chosen], "probabilities": listed}
    labels = [each["label"] for each in question["levels"]]
    listed = [
        {"label": label, "value": level, "probability": p}
        for level, (label, p) in enumerate(zip(labels, probabilities, strict=True))
    ]
    return made | {"score": answer["score"], "probabilities": listed}


POSTS = {"/v1/systemone": systemone, "/v1/decisions": decisions}
"""The handlers of the requests with a body, by path."""
