"""The tags between which an instance gets its thoughts, and what its configuration says of them."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.queries import get_base_config
from lmstudio_integrations.client.models.state import Configured, Instance
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioServerError
from lmstudio_integrations.types.reasoning import Tags

_DEFAULT = Tags("<think>", "</think>")
_PARSING_KEY = "llm.prediction.reasoning.parsing"
_TEMPLATE_KEY = "llm.prediction.promptTemplate"


def tags_of_part(part: Mapping[str, Any]) -> Tags:
    """Return the tags of a thought in wire form."""
    return Tags.of(part.get("startTag"), part.get("endTag"))


def tags_of_setting(parsing: object) -> Tags | None:
    if not is_object(parsing):
        return None
    tags = Tags.of(parsing.get("startString"), parsing.get("endString"))
    return tags if all(tags) else None


def tags_of_instance(operation: Operation, instance: Instance, requested: Tags | None = None) -> Flow[Tags]:
    """Return the tags that a thought without any gets.

    Args:
        operation: The operation that asks the server.
        instance: The instance.
        requested: Those that the user has set.
    """
    unknown = Tags("", "")
    return (yield from sent_tags(operation, instance, {unknown}, requested))[unknown]


def sent_tags(
    operation: Operation, instance: Instance, tag_pairs: set[Tags], requested: Tags | None
) -> Flow[dict[Tags, Tags]]:
    """Return the tags with which thoughts are sent, by the tags that they have.

    Those of the instance stay. Others come from elsewhere, and are replaced by those of the instance, as is an end tag
    alone, whose thought was opened by the prompt.
    """
    written = instance.reasoning.written
    is_known = tag_pairs <= written.keys()
    configured = instance.reasoning.configured if is_known else (yield from configured_in(operation, instance))
    of_config = None if configured is None else configured.tags
    of_instance = requested or of_config or next(iter([*written]), None)
    stay = tag_pairs if of_instance is None else {*written, of_config}
    return {tags: tags if all(tags) and tags in stay else of_instance or _DEFAULT for tags in tag_pairs}


def configured_in(operation: Operation, instance: Instance) -> Flow[Configured]:
    """Return what the configuration of an instance says; it is asked once."""
    known = instance.reasoning
    if known.configured is None:
        try:
            known.configured = _configured((yield from get_base_config(operation, instance.specifier)))
        except LMStudioModelNotFoundError:
            raise
        except LMStudioServerError:  # of 2025, without this endpoint
            known.configured = Configured()
    return known.configured


def _configured(fields: Mapping[str, Any]) -> Configured:
    template = fields.get(_TEMPLATE_KEY)
    return Configured(tags_of_setting(fields.get(_PARSING_KEY)), template if is_object(template) else None)
