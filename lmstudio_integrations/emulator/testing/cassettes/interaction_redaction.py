"""Returns a recorded request without secrets, for `recorder`: also those that a response has in several packets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.testing.cassettes.cassette import Event, Interaction
from lmstudio_integrations.emulator.testing.cassettes.redaction import Place, Redaction, hidden_texts


def redact(interaction: Interaction, redaction: Redaction) -> Interaction:
    """Return a request without secrets."""
    parameter = redaction.value(interaction.parameter)
    original = [event.body for event in interaction.events]
    bodies = [redaction.value(body) for body in original]
    for before, after in zip(_texts_in_parts(original), _texts_in_parts(bodies), strict=True):
        parts = redaction.parts(before.parts, also=hidden_texts(before.end, after.end), place=before.place)
        for old, new, holder in zip(before.parts, parts, after.holders, strict=True):
            holder[after.name] = new
            if new != old:
                # The number of a token, and what might have come in its place, are its text in another form.
                for other in ("id", "candidates"):
                    holder.pop(other, None)
    if interaction.endpoint == "tokenize" and parameter != interaction.parameter:
        # The numbers of the tokens are the text in another form.
        bodies = [{**body, "tokens": [0] * len(body["tokens"])} if _has_tokens(body) else body for body in bodies]
    events = [Event(event.kind, event.at, body) for event, body in zip(interaction.events, bodies, strict=True)]
    return replace(interaction, parameter=parameter, events=events)


def _has_tokens(body: object) -> bool:
    return is_object(body) and isinstance(body.get("tokens"), list)


@dataclass(slots=True)
class _TextInParts:
    """A text that a prediction sends in parts.

    Attributes:
        name: The member that has a part.
        holders: The objects that have this member.
        place: Where the text is.
        end: The packet that ends the tool call, if one does.
    """

    name: str
    holders: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    place: Place = "text"
    end: dict[str, Any] | None = None

    @property
    def parts(self) -> list[str]:
        return [holder[self.name] for holder in self.holders]

    def add(self, holder: object) -> None:
        if is_object(holder) and isinstance(holder.get(self.name), str):
            self.holders.append(holder)


def _texts_in_parts(bodies: Sequence[Any]) -> Iterable[_TextInParts]:
    """Return the texts that a prediction sends in parts: what it writes, and the arguments of each tool call."""
    content, tokens = _TextInParts("content"), _TextInParts("text")
    calls = [_TextInParts("content", place="arguments")]
    for packet in filter(is_object, bodies):
        kind, fragment = packet.get("type"), packet.get("fragment")
        if kind == "toolCallGenerationStart":
            calls.append(_TextInParts("content", place="arguments"))
        elif kind == "toolCallGenerationArgumentFragmentGenerated":
            calls[-1].add(packet)
        elif kind == "toolCallGenerationEnd":
            calls[-1].end = packet
        if is_object(fragment):
            content.add(fragment)
            for token in fragment.get("tokens") or ():
                tokens.add(token)
    return [content, tokens, *calls]
