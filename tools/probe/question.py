"""What a question of the probe is, and how a function becomes one.

A question calls; it does not look at what comes back, because the cassette has that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tools.probe.context import ProbeContext


@dataclass(frozen=True)
class Question:
    """A question, and how it is asked.

    Attributes:
        name: In kebab case; the section of the cassette.
        anchor: The place in docs/protocol.md that the answer belongs to.
        text: In one sentence.
        run: Makes the calls.
        is_invalid: Whether a request breaks the rules on purpose.
    """

    name: str
    anchor: str
    text: str
    run: Callable[[ProbeContext], None]
    is_invalid: bool = False


Run = Callable[..., None]


def register(
    questions: list[Question], name: str, anchor: str, text: str, *, is_invalid: bool = False, **arguments: Any
) -> Callable[[Run], Run]:
    """Return a decorator that adds a question to a list. A function may have several; the lowest one is asked first.

    Arguments that are no attributes of `Question` are what the function gets beside the context.
    """

    def add(run: Run) -> Run:
        questions.append(Question(name, anchor, text, partial(run, **arguments), is_invalid))
        return run

    return add
