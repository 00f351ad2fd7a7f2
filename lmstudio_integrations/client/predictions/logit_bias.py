"""The ids of the texts in `logit_bias`, from the tokenizer of the instance that generates."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations.client.models.queries import tokenize
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig

_KEY = wire_keys(LlmPredictionConfig)["logit_bias"].key


def with_token_ids(
    operation: Operation, instance: Instance, settings: LlmPredictionConfig, stack: Mapping[str, Any]
) -> Flow[Mapping[str, Any]]:
    """Return the settings of a prediction in wire form, with ids for the texts in its `logit_bias`.

    They are requested with each prediction, because another one may run on another instance.
    """
    texts = [token for token in settings.logit_bias or () if isinstance(token, str)]
    if not texts:
        return stack
    tokens = yield from tokenize(operation, "llm", instance.specifier, texts)
    ids = {text: _only_id(text, of_text) for text, of_text in zip(texts, tokens, strict=True)}
    return {"layers": [_with_ids(layer, ids) for layer in stack["layers"]]}


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
