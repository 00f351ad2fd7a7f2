"""The score of a text, from the probabilities of the first word of the response. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lmstudio_integrations.types.confidence import probability_of
from lmstudio_integrations.types.reranking import RerankTemplate, normal_word

FEW, MOST = 10, 100
"""The alternatives that are requested at first, and the most that a server reports."""

SPELLINGS = 6
"""In how many ways a word is usually a token: in lower, upper and title case, after a space or not."""

_TOLERANCE = 0.005
"""The most by which a spelling that was not reported may change a score."""


class Words(NamedTuple):
    """The probabilities of the two words, as far as they were reported.

    `least` is the most that a spelling may have that was not reported, `unseen` the most that all of them may have.
    """

    yes: float
    no: float
    unseen: float
    least: float

    @classmethod
    def of(cls, token: Mapping[str, Any], template: RerankTemplate) -> "Words":
        """Return the probabilities in a token of the server and its alternatives."""
        reported = {_id_of(each): probability_of(each) or 0.0 for each in _alternatives(token)}
        words = {"yes": normal_word(template.yes), "no": normal_word(template.no)}
        yes, no = (sum(p for (_, text), p in reported.items() if normal_word(text) == word) for word in words.values())
        rest = max(1.0 - sum(reported.values()), 0.0)
        least = min(rest, *reported.values())
        return cls(yes, no, min(rest, SPELLINGS * least), least)

    @property
    def are_exact(self) -> bool:
        """Whether what was not reported hardly matters."""
        return self.unseen <= _TOLERANCE * (self.yes + self.no)

    @property
    def score(self) -> float | None:
        """The score; `None` without either word. A word that was not reported counts as the least alternative."""
        if not (self.yes or self.no):
            return None
        yes, no = self.yes or self.least, self.no or self.least
        return yes / (yes + no)


def has_log_probabilities(token: Mapping[str, Any]) -> bool:
    """Whether a token of the server, or one of its alternatives, has a log-probability other than that of nothing."""
    return any(each.get("logProb") is not None for each in _alternatives(token))


def _alternatives(token: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield the token that was drawn, and its alternatives; some servers have it in both."""
    yield token
    yield from token.get("candidates") or ()


def _id_of(token: Mapping[str, Any]) -> tuple[object, str]:
    return token.get("id"), str(token.get("text", ""))
