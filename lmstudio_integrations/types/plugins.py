"""What the tools of plugins and MCP servers report and return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from lmstudio_integrations._support.text import counted, dumps
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioPluginToolError


@dataclass(frozen=True, slots=True)
class ToolReport:
    """What a running tool reports.

    Attributes:
        plugin: The identifier of its plugin or MCP server.
        tool: Its name.
        text: What it is doing, or a problem that it has solved by itself.
    """

    plugin: str
    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolImage:
    """An image in the result of a tool.

    Attributes:
        data: The file, in base64.
        mime_type: Its type, for example `image/png`.
    """

    data: str
    mime_type: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mime_type!r}, {counted(len(self.data), 'character')})"


@dataclass(frozen=True, slots=True)
class ToolContent:
    """The result of a tool as texts and images.

    MCP servers return a list of them. Any other JSON value is one text: a string as it is, else its JSON.

    Attributes:
        parts: The texts and images, in order. What is neither, such as a sound, is described by a text.
        is_error: Whether the tool says that it has failed.
    """

    parts: tuple[str | ToolImage, ...]
    is_error: bool = False

    @classmethod
    def of(cls, result: Any) -> Self:
        """Read the JSON value that a tool returned."""
        blocks = result.get("content") if is_object(result) and result.keys() <= _RESULT else result
        if not is_list(blocks) or not all(map(_is_block, blocks)) or (is_list(result) and not result):
            return cls((result if isinstance(result, str) else dumps(result),))
        is_error = is_object(result) and result.get("isError") is True
        if not blocks and is_object(result) and "structuredContent" in result:
            return cls((dumps(result["structuredContent"]),), is_error)
        return cls(tuple(_BLOCKS[block["type"]][1](block) for block in blocks), is_error)

    def checked(self, plugin: str, tool: str) -> Self:
        """Return it, unless the tool says that it has failed.

        Raises:
            LMStudioPluginToolError: If it says so; the title is the text.
        """
        if self.is_error:
            text = self.text
            raise LMStudioPluginToolError(f"Tool {tool!r} error: {text}", plugin=plugin, tool=tool, title=text)
        return self

    @property
    def images(self) -> tuple[ToolImage, ...]:
        """The images."""
        return tuple(part for part in self.parts if isinstance(part, ToolImage))

    @property
    def text(self) -> str:
        """The texts, one after the other, for a reader who sees no images: each is described by a line."""
        return "\n".join(
            f"[an image of type {part.mime_type}]" if isinstance(part, ToolImage) else part for part in self.parts
        )


def _is_block(value: object) -> bool:
    """Whether a value is a content block of MCP, with the members of its type."""
    if not is_object(value):
        return False
    members, _ = _BLOCKS.get(str(value.get("type")), (None, None))
    return members is not None and all(isinstance(value.get(name), kind) for name, kind in members.items())


def _resource(block: Mapping[str, Any]) -> str:
    resource = block["resource"]
    text = resource.get("text")
    if isinstance(text, str):
        return text
    return f"[a resource of type {resource.get('mimeType', 'unknown')}: {resource.get('uri', 'without address')}]"


_RESULT = {"content", "structuredContent", "isError", "_meta"}
"""The members of a result of MCP. An object with others is not one."""

_BLOCKS: Mapping[str, tuple[Mapping[str, type], Callable[[Mapping[str, Any]], str | ToolImage]]] = {
    "text": ({"text": str}, lambda block: block["text"]),
    "image": ({"data": str, "mimeType": str}, lambda block: ToolImage(block["data"], block["mimeType"])),
    "audio": ({"data": str, "mimeType": str}, lambda block: f"[a sound of type {block['mimeType']}]"),
    "resource": ({"resource": dict}, _resource),
    "resource_link": ({"uri": str}, lambda block: f"[a resource: {block['uri']}]"),
}
"""The content blocks of MCP: the members of each, with their types, and what becomes of it."""
