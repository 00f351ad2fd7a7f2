"""Programs for predictions and embeddings, the same for the official Python SDK and for this package.

`python programs.py PACKAGE ADDRESS...` runs all of them on each server, and prints what they found: a line of JSON for
each server. `programs.mjs` has the same programs in TypeScript.
"""

import base64
import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pydantic

lms: Any = import_module(sys.argv[1])

CHAT, EMBEDDING = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Book(pydantic.BaseModel):
    """A book."""

    title: str
    tags: list[str]


def stream(client: Any) -> Any:
    """Read a response as it is generated."""
    return [fragment.content for fragment in client.llm.model(CHAT).respond_stream("Tell a story")]


def chat(client: Any) -> Any:
    """Talk for three turns."""
    model, history = client.llm.model(CHAT), lms.Chat("You are a parrot.")
    responses: list[str] = []
    for text in ("Hello", "What did I say?", "And now?"):
        history.add_user_message(text)
        responses.append(model.respond(history).content)
        history.add_assistant_response(responses[-1])
    return responses


def complete(client: Any) -> Any:
    """Continue a text."""
    config = {"temperature": 0, "maxTokens": 5, "topKSampling": 20, "topPSampling": 0.9, "stopStrings": ["never"]}
    result = client.llm.model(CHAT).complete("Once upon a time", config=config)
    return [result.content, result.stats.stop_reason]


def typed(client: Any) -> Any:
    """Ask for a response of a type."""
    return client.llm.model(CHAT).respond("Name another book", response_format=Book).parsed


def reasoning(client: Any) -> Any:
    """Read reasoning apart from the response."""
    fragments = client.llm.model(CHAT).respond_stream("Think about it")
    return "".join(each.content for each in fragments if each.reasoning_type == "reasoning")


def act(client: Any) -> Any:
    """Offer a tool that the model calls."""
    tool = {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {"a": int, "b": int},
        "implementation": lambda a, b: a + b,
    }
    texts: list[str] = []
    result = client.llm.model(CHAT).act(
        "What is 2 + 3?", [tool], on_prediction_completed=lambda each: texts.append(each.content)
    )
    return [result.rounds, texts[-1]]


def cancel(client: Any) -> Any:
    """Cancel a response in the middle."""
    prediction = client.llm.model(CHAT).respond_stream("Wait")
    for _ in prediction:
        prediction.cancel()
    result = prediction.result()
    return [result.content, result.stats.stop_reason]


def image(client: Any) -> Any:
    """Ask about an image."""
    history = lms.Chat()
    history.add_user_message("What is this?", images=[client.prepare_image(PIXEL, "pixel.png")])
    return client.llm.model(CHAT).respond(history).content


def load(client: Any) -> Any:
    """Load a model with settings, and unload it."""
    config = {"contextLength": 1000, "gpu": {"ratio": 0.5}, "evalBatchSize": 128}
    model = client.llm.load_new_instance(CHAT, "mine", config=config, ttl=60)
    found = [model.respond("Here I am").content, model.get_context_length()]
    model.unload()
    return found


def tokens(client: Any) -> Any:
    """Count the tokens of a text, and apply the template to a chat."""
    model, history = client.llm.model(CHAT), lms.Chat("Be brief.")
    history.add_user_message("Hello there")
    return [
        model.tokenize("Hello there"),
        model.count_tokens("Hello, world"),
        model.apply_prompt_template(history),
        model.get_context_length(),
    ]


def embed_several(client: Any) -> Any:
    """Embed several texts."""
    return client.embedding.model(EMBEDDING).embed(["one", "two", "three"])


PROGRAMS: tuple[Callable[[Any], Any], ...] = (
    stream,
    chat,
    complete,
    typed,
    reasoning,
    act,
    cancel,
    image,
    load,
    tokens,
    embed_several,
)

for address in sys.argv[2:]:
    with lms.Client(address) as client:
        print(json.dumps({program.__name__: program(client) for program in PROGRAMS}))
