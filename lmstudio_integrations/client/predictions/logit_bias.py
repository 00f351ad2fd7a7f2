"""The ids of the texts in `logit_bias`, from the tokenizer of the instance that generates."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.shortening import beginning, counted
from lmstudio_integrations.client.models.binding import Binding, Specifier
from lmstudio_integrations.client.models.queries import tokenize_on
from lmstudio_integrations.client.predictions.run import MakeRequest
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig

_KEY = wire_keys(LlmPredictionConfig)["logit_bias"].key


def with_token_ids(make: MakeRequest, settings: LlmPredictionConfig) -> MakeRequest:
    """Return what makes the parameter of a prediction, with ids for the texts in its `logit_bias`.

    They are requested with each prediction, because another one may run on another instance.
    """
    texts = [token for token in settings.logit_bias or () if isinstance(token, str)]
    if not texts:
        return make

    def make_with_ids(dispatcher: Dispatcher[Any], binding: Binding, specifier: Specifier) -> "Flow[Mapping[str, Any]]":
        tokens = yield from tokenize_on(dispatcher, specifier, texts)
        ids = {text: _only_id(text, of_text) for text, of_text in zip(texts, tokens, strict=True)}
        parameter = yield from make(dispatcher, binding, specifier)
        layers = [_with_ids(layer, ids) for layer in parameter["predictionConfigStack"]["layers"]]
        return {**parameter, "predictionConfigStack": {"layers": layers}}

    return make_with_ids


def _only_id(text: str, tokens: list[int]) -> int:
    """Return the id of a text.

    Raises:
        LMStudioValueError: If it is not exactly one token.
    """
    if len(tokens) == 1:
        return tokens[0]
    raise LMStudioValueError(
        f"logit_bias names {beginning(text)}, which is {counted(len(tokens), 'token')} of this model, and not one; "
        "name each token by its id, which tokenize() returns"
    )


def _with_ids(layer: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    fields = [
        {**field, "value": [[ids.get(token, token), bias] for token, bias in field["value"]]}
        if field["key"] == _KEY
        else field
        for field in layer["config"]["fields"]
    ]
    return {**layer, "config": {"fields": fields}}
