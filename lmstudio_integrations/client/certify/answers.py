"""The rows of right and wrong answers: `structure`, `vision`, and `embedding` for embedding models."""

import math
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from datetime import date
from enum import StrEnum
from functools import partial
from operator import mul
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, Field, ValidationError, create_model

from lmstudio_integrations.client.certify.examiner import (
    OF_THE_INSTANCE,
    Case,
    Examiner,
    Row,
    Summary,
    most_common,
    random_words,
    successes,
)
from lmstudio_integrations.client.embeddings import Vectors
from lmstudio_integrations.client.predictions.plan import PredictionParameters
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioServerError
from lmstudio_integrations.types.cards import Observation, failures_of, outcomes, share_text
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.embedding_prefixes import prefixes_of_family
from lmstudio_integrations.types.models import LlmInstanceInfo, ModelInstanceInfo
from lmstudio_integrations.types.results import LlmPredictionFragment

# Structure: twenty formats; four of them after reasoning, and four read as a stream ----------------------------------

_FORMATTED, _REASONED = 80, 192
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


def _route() -> type[BaseModel]:
    point = _object("Point", x=int, y=int)
    return _object("Route", start=point, end=point)


_RATING = Annotated[int, Field(ge=1, le=5)]
_SHARE = Annotated[float, Field(ge=0, le=1)]
_CODE = Annotated[str, Field(pattern="^[A-Z]{2}-[0-9]{3}$", examples=["AB-123"])]

FORMATS: Sequence[Format] = (
    Format("flat/1", "Ana Silva is 34 years old.", lambda: _object("Person", name=str, age=int)),
    Format("flat/2", "Is 17 a prime number?", lambda: _object("Check", number=int, is_prime=bool)),
    Format("nested/1", "Li Wei orders a lamp.", lambda: _object("Order", by=_object("Person", name=str), product=str)),
    Format("nested/2", "The route begins at (1, 2) and ends at (7, 5).", _route),
    Format(
        "nested/3",
        "The company Nordlys is at Main Street 5 in Oslo, Norway.",
        lambda: _object(
            "Company",
            name=str,
            address=_object("Address", street=str, city=_object("City", name=str, country=str)),
        ),
    ),
    Format(
        "union/1",
        "A square with sides of 2.5.",
        lambda: _object(
            "Shape",
            shape=_object("Circle", kind=Literal["circle"], radius=float)
            | _object("Square", kind=Literal["square"], side=float),
        ),
    ),
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


def _ask_format(requested: Format, name: str, examiner: Examiner) -> Flow[None]:
    response_format, fragments = requested.build(), list[LlmPredictionFragment]()
    parameters: PredictionParameters = {
        "response_format": response_format,
        "on_prediction_fragment": fragments.append,
        "check_response": False,
        "think_first": False,  # what the server does by itself
    }
    part = name.partition("/")[0]
    max_tokens = _REASONED if part == "reasoning" else _FORMATTED
    prompt = f"{examiner.vary(requested.prompt)} Respond with JSON."
    result = yield from examiner.respond(prompt, max_tokens, reasoning=part == "reasoning", **parameters)
    streamed = [each.content for each in fragments if each.reasoning_type == "none" and not each.is_structural]
    outcome = judge(response_format, "".join(streamed) if part == "streamed" else result.content)
    if outcome != "valid" and result.stats.stop_reason == "maxPredictedTokensReached":
        outcome = "too long"
    examiner.judged(name, outcome, result)


def judge(response_format: type[BaseModel], text: str) -> str:
    """Return whether a text is JSON of the format, and nothing else."""
    try:
        response_format.model_validate_json(text, strict=True)
    except ValidationError as error:
        return "not JSON" if error.errors()[0]["type"] == "json_invalid" else "invalid"
    return "valid"


_STRUCTURE_ADVICE = {
    "too long": f"take a larger max_tokens: some responses do not end within {_FORMATTED}",
    "invalid": "give with_structured_output max_attempts=2, which has a response corrected that does not fit",
    "not JSON": "response_format is not kept; request the response as a tool call, with required_tool_fallback=True",
    "rejected": "take simpler schemas for response_format: the server rejects some",
}


def _summarize_structure(observations: Sequence[Observation]) -> Summary:
    advice = most_common(_STRUCTURE_ADVICE, observations)
    if {each.part for each in failures_of(observations)} == {"reasoning"}:
        advice = "leave think_first=True, the default: without it, the format fails after reasoning"
    return Summary(successes(observations, "valid"), advice)


STRUCTURE = Row(
    name="structure",
    question="Does a response have the format that was requested, also after reasoning and in a stream?",
    anchor="structured-output",
    cases=[
        Case(name, partial(_ask_format, each, name))
        for name, each in (
            *((each.name, each) for each in FORMATS),
            *((f"reasoning/{number}", each) for number, each in enumerate(FORMATS[2::5], 1)),
            *((f"streamed/{number}", each) for number, each in enumerate(FORMATS[4::5], 1)),
        )
    ],
    prompt_tokens=3_000,
    predicted_tokens=2_700,
    summarize=_summarize_structure,
    scores={"valid": 1},
)


# Vision: four images of one color each, and the question which one it is ----------------------------------------------

COLORS = {"red": b"\xff\x00\x00", "green": b"\x00\x80\x00", "blue": b"\x00\x00\xff", "yellow": b"\xff\xff\x00"}
SIZE = 64
"""Pixels of a side. Models that divide images into patches reject much smaller ones."""


def png(color: bytes) -> bytes:
    """Return a square of one color as a PNG file."""
    rows = zlib.compress((b"\x00" + color * SIZE) * SIZE)
    chunks = (b"IHDR" + struct.pack(">2I5B", SIZE, SIZE, 8, 2, 0, 0, 0), b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _ask_color(number: int, color: str, examiner: Examiner) -> Flow[None]:
    images = yield from examiner.llm.prepare_images([png(COLORS[color])], allow_private_hosts=False)
    chat = Chat()
    prompt = examiner.vary(f"Image {number}. Which color is this image? Reply with one word.")
    chat.add_user_message(prompt, images=images)
    result = yield from examiner.respond(chat, 24)
    words = re.findall(r"\w+", result.content.casefold())
    is_right = [each for each in COLORS if each in words] == [color]
    examiner.judged(f"color/{number}", "right" if is_right else "wrong", result)


def _sees_nothing(info: ModelInstanceInfo) -> str | None:
    return None if isinstance(info, LlmInstanceInfo) and info.vision else "the model sees no images"


def _summarize_vision(observations: Sequence[Observation]) -> Summary:
    advice = "use another model for images; user_max_image_dimension_pixels limits what it gets of them"
    return Summary(successes(observations, "colors right"), advice if failures_of(observations) else None)


VISION = Row(
    name="vision",
    question="Does the model see the images that it gets?",
    anchor="upload-file",
    cases=[Case(f"color/{number}", partial(_ask_color, number, color)) for number, color in enumerate(COLORS, 1)],
    prompt_tokens=4_000,
    predicted_tokens=1_200,
    summarize=_summarize_vision,
    scores={"right": 1},
    missing=_sees_nothing,
    apart=True,
)


# Embedding: what the vectors are like, and what becomes of a text that is too long ------------------------------------

_EQUAL = 1e-4
"""How much numbers of equal vectors may differ: several texts may be computed together."""

_LONGEST = 2_300
"""Tokens. Eight texts beyond a longer context window would take too long."""

TEXTS = (
    ("The ferry to the island leaves at noon.", "When does the ferry to the island leave?", "Old books smell of dust."),
    ("A swim in the pool costs four euros.", "What is the price of a swim in the pool?", "My uncle plays the violin."),
    ("The bakery sells bread until six.", "Until when can I buy bread in the bakery?", "Saturn has large rings."),
    ("Vaccines protect children from measles.", "Measles is prevented by vaccines.", "The train to Rome was late."),
)
"""Three texts each, of which the first two are about the same."""


def _vectors(examiner: Examiner, texts: Sequence[str]) -> Flow[Vectors]:
    return cast("Vectors", (yield from examiner.embedder.vectors_of(list(texts))))


def _dimensions(examiner: Examiner) -> Flow[None]:
    (vector,) = yield from _vectors(examiner, [TEXTS[0][0]])
    examiner.fact("dimensions", len(vector))


def _norm(examiner: Examiner) -> Flow[None]:
    (vector,) = yield from _vectors(examiner, [TEXTS[0][0]])
    examiner.fact("norm", "1" if abs(math.hypot(*vector) - 1) < 1e-3 else "not 1")


def _steady(number: int, examiner: Examiner) -> Flow[None]:
    texts = [examiner.vary(TEXTS[number - 1][0])]
    (first,), (second,) = (yield from _vectors(examiner, texts)), (yield from _vectors(examiner, texts))
    examiner.verdict(f"steady/{number}", "same" if _is_same(first, second) else "different")


def _similar(number: int, examiner: Examiner) -> Flow[None]:
    prefix = prefixes_of_family(examiner.embedder.state.key).document
    one, same, other = yield from _vectors(examiner, [prefix + examiner.vary(text) for text in TEXTS[number - 1]])
    is_right = _cosine(one, same) > max(_cosine(one, other), _cosine(same, other))
    examiner.verdict(f"similar/{number}", "nearer" if is_right else "not nearer")


def _too_long(examiner: Examiner) -> Flow[None]:
    window = examiner.info.context_length
    if window > _LONGEST:
        examiner.fact("too long", "not tried")
        return
    for _ in TEXTS:
        beginning = random_words(window)
        try:
            first, second = yield from _vectors(examiner, [f"{beginning} {random_words(16)}" for _ in range(2)])
        except OF_THE_INSTANCE:
            raise
        except LMStudioServerError as error:
            examiner.verdict("too long", "rejected", str(error))
            continue
        # If it is cut, the end of the text makes no difference.
        examiner.verdict("too long", "cut in silence" if _is_same(first, second) else "taken")


def _is_same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        abs(first - second) <= _EQUAL for first, second in zip(one, other, strict=True)
    )


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(map(mul, one, other)) / ((math.hypot(*one) * math.hypot(*other)) or 1)


_EMBEDDING_ADVICE = {
    "cut in silence": 'length_policy="average" embeds all of a text that is too long',
    "not nearer": "set query_prefix and document_prefix if the model card names prefixes",
}


def _summarize_embedding(observations: Sequence[Observation]) -> Summary:
    texts = [f"{each.case} {each.outcome}" for each in observations if each.kind == "fact"]
    verdicts = [each for each in observations if each.kind == "verdict"]
    failures = failures_of(verdicts)
    texts += [f"{share_text(verdicts)} right" + (f" ({outcomes(failures)})" if failures else "")] if verdicts else []
    return Summary(", ".join(texts), most_common(_EMBEDDING_ADVICE, verdicts))


EMBEDDING = Row(
    name="embedding",
    question="Are the vectors steady, nearer for similar texts, and not of the beginning of a long text alone?",
    anchor="embedding-endpoints",
    cases=[
        Case("dimensions", _dimensions),
        Case("norm", _norm),
        *(Case(f"steady/{number}", partial(_steady, number)) for number in range(1, 5)),
        *(Case(f"similar/{number}", partial(_similar, number)) for number in range(1, 5)),
        Case("too long", _too_long),
    ],
    prompt_tokens=20_000,
    predicted_tokens=0,
    summarize=_summarize_embedding,
    scores={"same": 1, "nearer": 1, "taken": 1, "rejected": 1},
    kinds=("embedding",),
    apart=True,
)
