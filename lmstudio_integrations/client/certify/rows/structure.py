"""The row `structure`: responses in twenty formats; four of them after reasoning, and four read as a stream."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError, create_model

from lmstudio_integrations.client.certify.asking import Asking, Case, Row, Summary
from lmstudio_integrations.client.predictions.requests import PredictionParameters
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.cards import Observation, failures_of, outcomes, share_text
from lmstudio_integrations.types.results import LlmPredictionFragment

MAX_TOKENS, WITH_REASONING = 80, 192
"""Tokens of a response."""


class Format(NamedTuple):
    """A request, and what builds the format of its response; that takes time, and so is done when it is asked."""

    name: str
    prompt: str
    build: Callable[[], type[BaseModel]]


class Tree(BaseModel, defer_build=True):
    """A format that contains itself."""

    label: str
    children: "list[Tree]"


class Step(BaseModel, defer_build=True):
    """A format that contains itself at most once."""

    text: str
    then: "Step | None"


_Element = StrEnum(
    "_Element",
    "hydrogen helium lithium beryllium boron carbon nitrogen oxygen fluorine neon sodium magnesium aluminium silicon "
    "phosphorus sulfur chlorine argon potassium calcium scandium titanium vanadium chromium manganese iron cobalt "
    "nickel copper zinc gallium germanium arsenic selenium bromine krypton rubidium strontium yttrium zirconium",
)


def _object(title: str, /, **members: Any) -> type[BaseModel]:
    """Return a class; a member that is a tuple has a default, and is not required."""
    fields: dict[str, Any] = {name: each if isinstance(each, tuple) else (each, ...) for name, each in members.items()}
    return create_model(title, **fields)


def _list(item: Any, least: int, most: int) -> Any:
    return Annotated[list[item], Field(min_length=least, max_length=most)]


def _company() -> type[BaseModel]:
    address = _object("Address", street=str, city=_object("City", name=str, country=str))
    return _object("Company", name=str, address=address)


def _route() -> type[BaseModel]:
    point = _object("Point", x=int, y=int)
    return _object("Route", start=point, end=point)


def _shape() -> type[BaseModel]:
    circle = _object("Circle", kind=Literal["circle"], radius=float)
    square = _object("Square", kind=Literal["square"], side=float)
    return _object("Shape", shape=circle | square)


_RATING = Annotated[int, Field(ge=1, le=5)]
_SHARE = Annotated[float, Field(ge=0, le=1)]
_CODE = Annotated[str, Field(pattern="^[A-Z]{2}-[0-9]{3}$", examples=["AB-123"])]

FORMATS: Sequence[Format] = (
    Format("flat/1", "Ana Silva is 34 years old.", lambda: _object("Person", name=str, age=int)),
    Format("flat/2", "Is 17 a prime number?", lambda: _object("Check", number=int, is_prime=bool)),
    Format("nested/1", "Li Wei orders a lamp.", lambda: _object("Order", by=_object("Person", name=str), product=str)),
    Format("nested/2", "The route begins at (1, 2) and ends at (7, 5).", _route),
    Format("nested/3", "The company Nordlys is at Main Street 5 in Oslo, Norway.", _company),
    Format("union/1", "A square with sides of 2.5.", _shape),
    Format("union/2", "A lamp whose price is unknown.", lambda: _object("Item", product=str, price=float | None)),
    Format("optional/1", "Ana has no telephone.", lambda: _object("Contact", name=str, phone=(str | None, None))),
    Format("optional/2", "Find hotels in Rome.", lambda: _object("Search", city=(str, ""), stars=(int | None, None))),
    Format("recursive/1", "A tree: the root A has two leaves, B and C.", lambda: Tree),
    Format("recursive/2", "Two steps: wash, then cut.", lambda: Step),
    Format("array/1", "Name the three primary colors.", lambda: _object("Colors", colors=_list(str, 3, 3))),
    Format("array/2", "List the even numbers from 2 to 20.", lambda: _object("Numbers", numbers=_list(int, 2, 4))),
    Format("array/3", "Pens and cups.", lambda: _object("Cart", lines=_list(_object("Line", product=str), 2, 3))),
    Format("enum/1", "Which metal are wires made of?", lambda: _object("Metal", element=_Element)),
    Format("enum/2", "What is water made of?", lambda: _object("Formula", elements=_list(_Element, 2, 3))),
    Format("number/1", "The food was perfect, 100 of 100.", lambda: _object("Review", rating=_RATING)),
    Format("number/2", "It rains on 30 percent of days.", lambda: _object("Weather", probability=_SHARE)),
    Format("text/1", "The shop opens on the 3rd of May 2027.", lambda: _object("Opening", day=date)),
    Format("text/2", "The part has the code QX-407.", lambda: _object("Part", code=_CODE)),
)
"""In the parts `flat`, `nested`, `union`, `optional`, `recursive`, `array`, `enum`, `number` and `text`."""


def _ask(requested: Format, name: str, asking: Asking) -> Flow[None]:
    response_format, fragments = requested.build(), list[LlmPredictionFragment]()
    parameters: PredictionParameters = {
        "response_format": response_format,
        "on_prediction_fragment": fragments.append,
        "check_response": False,
        "think_first": False,  # what the server does by itself
    }
    part = name.partition("/")[0]
    max_tokens = WITH_REASONING if part == "reasoning" else MAX_TOKENS
    prompt = f"{asking.vary(requested.prompt)} Respond with JSON."
    reply = yield from asking.respond(prompt, max_tokens, reasoning=part == "reasoning", **parameters)
    outcome = "rejected"
    if reply.result is not None:
        streamed = [each.content for each in fragments if each.reasoning_type == "none" and not each.is_structural]
        outcome = judge(response_format, "".join(streamed) if part == "streamed" else reply.result.content)
        if outcome != "valid" and reply.result.stats.stop_reason == "maxPredictedTokensReached":
            outcome = "too long"
    asking.verdict(name, outcome, outcome == "valid", "" if outcome == "valid" else reply.text)


def judge(response_format: type[BaseModel], text: str) -> str:
    """Return whether a text is JSON of the format, and nothing else."""
    try:
        response_format.model_validate_json(text, strict=True)
    except ValidationError as error:
        return "not JSON" if error.errors()[0]["type"] == "json_invalid" else "invalid"
    return "valid"


ADVICE = {
    "too long": f"take a larger max_tokens: some responses do not end within {MAX_TOKENS}",
    "invalid": "give with_structured_output max_attempts=2, which has a response corrected that does not fit",
    "not JSON": "response_format is not kept; request the response as a tool call, with required_tool_fallback=True",
    "rejected": "take simpler schemas for response_format: the server rejects some",
}


def _summarize(observations: Sequence[Observation]) -> Summary:
    failures = failures_of(observations)
    text = f"{share_text(observations)} valid" + (f"; {outcomes(failures)}" if failures else "")
    if failures and all(each.part == "reasoning" for each in failures):
        return Summary(text, "leave think_first=True, the default: without it, the format fails after reasoning")
    counts = Counter(each.outcome for each in failures).most_common(1)
    return Summary(text, ADVICE.get(counts[0][0]) if counts else None)


STRUCTURE = Row(
    name="structure",
    question="Does a response have the format that was requested, also after reasoning and in a stream?",
    anchor="structured-output",
    cases=[
        Case(name, partial(_ask, each, name))
        for name, each in (
            *((each.name, each) for each in FORMATS),
            *((f"reasoning/{number}", each) for number, each in enumerate(FORMATS[2::5], 1)),
            *((f"streamed/{number}", each) for number, each in enumerate(FORMATS[4::5], 1)),
        )
    ],
    prompt_tokens=3_000,
    predicted_tokens=2_700,
    summarize=_summarize,
)
