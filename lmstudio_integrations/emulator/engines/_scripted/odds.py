"""Made-up certainty of a scripted model: log-probabilities and the luck of a draft model.

The figures follow from the tokens alone, so that two runs agree, and they add up as real ones do.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

from lmstudio_integrations.emulator.engines._scripted import words
from lmstudio_integrations.types.config import LlmPredictionConfig

_OTHERS = tuple(words.split(" the a of and to in is it that not"))
_DEFAULT_DRAFT = 2


def odds_of(token: str, candidates: int) -> dict[str, Any]:
    """Return what `fragment.tokens` says of a token (protocol §6.4).

    Args:
        token: Its text.
        candidates: How many of the most probable tokens to name, the written one first. There are eleven.
    """
    number = words.token_id(token)
    probability = 0.5 + number % 499 / 1000
    written: dict[str, Any] = {"text": token, "id": number, "logProb": math.log(probability)}
    if not candidates:
        return written
    others = [other for other in _OTHERS if other != token][: candidates - 1]
    rest = [
        {"text": other, "id": words.token_id(other), "logProb": math.log((1 - probability) / 2**place)}
        for place, other in enumerate(others, 1)
    ]
    return {**written, "candidates": [written, *rest]}


@dataclass(slots=True)
class Draft:
    """The book-keeping of speculative decoding.

    Drafts of `length` tokens follow one another. The first draft has one good token, the next two, and so on, then
    none again; the token after the good ones is rejected and written by the model itself, the others are ignored.
    A draft shorter than `consider` is ignored as a whole.
    """

    key: str
    length: int
    consider: int
    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    _drafts: int = 0
    _good: int | None = None
    _may_reject: bool = False

    @classmethod
    def of(cls, config: LlmPredictionConfig) -> Self | None:
        """Read the settings; `None` without a draft model."""
        if not config.draft_model:
            return None
        length = config.speculative_decoding_num_draft_tokens_exact
        return cls(
            config.draft_model,
            _DEFAULT_DRAFT if length is None else max(length, 0),
            config.speculative_decoding_min_draft_length_to_consider or 0,
        )

    def take(self) -> bool:
        """Account for the next token of the answer; return whether it was drafted."""
        considered = self.length >= self.consider
        if self._good is None:
            self._drafts += 1
            self._good = self._drafts % (self.length + 1) if considered else 0
            # What is not accepted or rejected by the end of the answer was drafted in vain.
            self.ignored += self.length
            self._may_reject = considered and self._good < self.length
        if self._good:
            self._good -= 1
            self.ignored -= 1
            self.accepted += 1
            return True
        if self._may_reject:
            self.ignored -= 1
            self.rejected += 1
        self._good = None
        return False

    def stats(self) -> dict[str, Any]:
        """Return the counts by their wire names; the total is the sum of the others (protocol §6.5)."""
        return {
            "usedDraftModelKey": self.key,
            "totalDraftTokensCount": self.accepted + self.rejected + self.ignored,
            "acceptedDraftTokensCount": self.accepted,
            "rejectedDraftTokensCount": self.rejected,
            "ignoredDraftTokensCount": self.ignored,
        }
