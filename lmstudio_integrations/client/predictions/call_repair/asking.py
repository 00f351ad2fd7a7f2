"""Asks a model to write calls again that do not fit: the sentence about them, and the schema of the response. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.predictions.tool_parser.call_parser import ParsedCall
from lmstudio_integrations.client.predictions.tool_parser.tools import OfferedTool
from lmstudio_integrations.types._json_schemas import call_schema

_LONGEST_FIXED = 200
"""Characters of an argument that the model has to write again; a longer one is put in afterwards."""


@dataclass(frozen=True, slots=True)
class WrongCall:
    """A call that does not fit, and that only the model can mend.

    Attributes:
        text: The call as the model wrote it.
        problem: What is wrong with it.
        tools: The tool that is called; several if it is not known which.
        arguments: The arguments, if they can be read.
    """

    text: str
    problem: str
    tools: Sequence[OfferedTool]
    arguments: dict[str, Any]

    def schemas(self) -> list[dict[str, Any]]:
        """Return the tools that the call may be made of, with the arguments that fit fixed."""
        return [{"name": tool.name, "parameters": self._parameters(tool)} for tool in self.tools]

    def _parameters(self, tool: OfferedTool) -> dict[str, Any]:
        fixed = self._fixed(tool)
        long = {name for name, value in fixed.items() if len(json.dumps(value)) > _LONGEST_FIXED}
        # An argument that does not fit is written again, and not left out.
        usable = (name for name in self.arguments if name in fixed or name in tool.parameters)
        required = [*tool.schema.get("required", ()), *usable]
        # What the model did not write, it does not need, unless it wrote it under another name.
        is_all_known = self._is_all_known(tool, fixed)
        more = {name: None for name in fixed if name not in tool.parameters}
        properties = {
            name: {"const": fixed[name]} if name in fixed else schema
            for name, schema in {**tool.parameters, **more}.items()
            if name not in long and (name in required or name in self.arguments or not is_all_known)
        }
        required = [name for name in dict.fromkeys(required) if name not in long]
        return {"additionalProperties": False, **tool.schema, "properties": properties, "required": required}

    def _is_all_known(self, tool: OfferedTool, fixed: Mapping[str, Any]) -> bool:
        return bool(fixed) and self.arguments.keys() <= tool.parameters.keys() | fixed.keys()

    def _fixed(self, tool: OfferedTool) -> dict[str, Any]:
        """Return the arguments that fit."""
        misfits = {each.path[0] for each in tool.misfits(self.arguments) if each.path}
        allows_more = bool(tool.schema.get("additionalProperties") or tool.schema.get("patternProperties"))
        known = self.arguments if allows_more else tool.parameters
        return {name: each for name, each in self.arguments.items() if name in known and name not in misfits}

    def mended_by(self, call: object) -> ParsedCall | None:
        """Return the call that a response makes of this one: what fitted stays; `None` if it does not fit either."""
        tool = next((each for each in self.tools if is_object(call) and each.name == call.get("name")), None)
        written = call.get("arguments") if is_object(call) else None
        if tool is None or not is_object(written):
            return None
        fixed = self._fixed(tool)
        added = written.keys() - self.arguments.keys() - {*tool.schema.get("required", ())}
        if added and self._is_all_known(tool, fixed):  # a server that ignores the grammar
            return None
        names = [name for name in (*self.arguments, *written) if name in fixed or name in written]
        arguments = {name: fixed.get(name, written.get(name)) for name in names}
        return ParsedCall(tool, arguments) if tool.problem(arguments) is None else None


def sentence(wrong: Sequence[WrongCall], *, with_tools: bool) -> str:
    """Return the message that asks the model to write the calls again.

    Args:
        wrong: The calls.
        with_tools: Whether it has the definitions of their tools, because the prompt does not have them.
    """
    problems = "\n".join(f"{shortened(each.text)}: {each.problem}" for each in wrong)
    tools = {tool.name: tool.schema for each in wrong for tool in each.tools} if with_tools else {}
    definitions = "".join(
        f"\nThe tool {name}: {json.dumps(schema, ensure_ascii=False)}" for name, schema in tools.items()
    )
    if len(wrong) == 1:
        form = 'the correct call as JSON: {"name": …, "arguments": …}'
    else:
        form = 'the correct calls as JSON: [{"name": …, "arguments": …}, …]'
    return f"This does not fit:\n{problems}{definitions}\nRespond only with {form}"


def response_schema(wrong: Sequence[WrongCall]) -> dict[str, Any]:
    """Return the schema of the response: one call, or a list of several."""
    schema = call_schema([function for each in wrong for function in each.schemas()])
    if len(wrong) == 1:
        return schema
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    return {"type": "array", "items": schema, "minItems": len(wrong), "maxItems": len(wrong), **definitions}


def calls_of(response: str, wrong: Sequence[WrongCall]) -> list[ParsedCall | None]:
    """Return the call for each wrong one; `None` where none mends it."""
    try:
        read: Any = json.loads(response)
    except ValueError:
        read = None
    calls = [read] if len(wrong) == 1 else read
    if not is_list(calls) or len(calls) != len(wrong):
        return [None] * len(wrong)
    return [each.mended_by(call) for each, call in zip(wrong, calls, strict=True)]
