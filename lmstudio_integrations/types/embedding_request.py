"""What the adapters ask the client to embed: texts, and what happens to those that are too long."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

LengthPolicy: TypeAlias = Literal["error", "truncate", "average", "pass"]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be embedded together.

    Attributes:
        texts: The texts.
        policy: Texts that are too long are an error, are embedded by their beginning, get the average of the vectors of
            their parts, or are sent as they are.
        splitter_setting: The name of the setting of the framework that makes texts shorter, for errors.
        given: The caller's whole list, of which a framework makes batches; empty if `texts` is all of it.
        labels: What errors call each text, such as its line in a file; by default `text` and its number.
        context_length: The most tokens that the model takes, if that is less than the context length of the instance:
            the smallest of several hosts.
    """

    texts: list[str]
    policy: LengthPolicy
    splitter_setting: str
    given: Sequence[str] = ()
    labels: Sequence[str] = ()
    context_length: int | None = None

    def part(self, start: int, stop: int) -> "EmbeddingRequest":
        """Return a request for some of the texts. Errors count them in the whole list."""
        return replace(
            self, texts=self.texts[start:stop], given=self.given or self.texts, labels=self.labels[start:stop]
        )
