"""Generated schemas, responses and tokens, and the confidence of their fields, computed from each character."""

import json
import math
import random
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

_KEYS = ("city", "name", "_1", "né", "a b", "x-y", "0", "", 'quo"te', "back\\slash", "items", "日本")
_STRINGS = ("", "Oslo", 'a "quoted" word', "line\nbreak", "tab\\", "{[,]}: null", "José", "日本語", "🦄🦄", "a" * 40)
_ENUMS: tuple[list[Any], ...] = (
    ["red", "green", "grey", "blue"],
    ["é", "è", "a\nb"],
    [1, 12, 120, -1],
    ["1", 1, None, True],
    ["only"],
)
_OTHERS = (" the", '"', "0", "12", "-", "tru", " false", "null", "}", ",", '": "', "9,", "e5", "é")
_SPACE = " \t\r\n"


@dataclass
class Leaf:
    """A value without values of its own: its path, where it stands, and the values that its schema lists."""

    path: str
    start: int
    end: int
    value: Any
    members: list[Any] | None


@dataclass
class Document:
    """A response and its tokens; each token stands at `spans`, of which those of parts of characters overlap."""

    schema: dict[str, Any] = field(default_factory=dict[str, Any])
    text: str = ""
    leaves: list[Leaf] = field(default_factory=list[Leaf])
    tokens: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    spans: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


class _Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.space = self.random.choice(["", " ", "\n  ", "\t"])
        self.ascii = self.random.random() < 0.5
        self.document = Document()
        self.definitions: dict[str, Any] = {}

    def dumps(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self.ascii)

    def write(self, text: str) -> None:
        self.document.text += text

    def value(self, path: str, depth: int) -> dict[str, Any]:
        """Write a value; return its schema."""
        if depth < 3 and self.random.random() < (0.9 if depth == 0 else 0.35):
            return self.random.choice([self.object, self.object, self.array])(path, depth)
        schema, value, members = self.scalar()
        start = len(self.document.text)
        self.write(self.dumps(value))
        self.document.leaves.append(Leaf(path, start, len(self.document.text), value, members))
        return schema

    def scalar(self) -> tuple[dict[str, Any], Any, list[Any] | None]:
        """Return a schema, a value of it, and the values that the schema lists."""
        choice = self.random.choice
        enum = choice(_ENUMS)
        named = f"E{len(self.definitions)}"
        self.definitions[named] = {"enum": enum, "title": named}
        optional = enum if None in enum else [*enum, None]
        anything = choice([True, "x", 5])
        kinds: list[tuple[dict[str, Any], Any, list[Any] | None]] = [
            ({"type": "string"}, choice(_STRINGS), None),
            ({"type": "integer"}, choice([0, 7, 42, -3, 1987, 10**20]), None),
            ({"anyOf": [{"type": "number"}, {"type": "null"}]}, choice([0.5, -1.25, 1e30, 3, None]), None),
            ({"type": "boolean"}, choice([True, False]), [True, False]),
            ({"type": ["boolean", "null"]}, choice([True, None]), [True, False, None]),
            ({"enum": enum}, choice(enum), enum),
            ({"anyOf": [{"$ref": f"#/$defs/{named}"}, {"type": "null"}]}, choice(optional), optional),
            ({"const": "fixed"}, "fixed", ["fixed"]),
            ({}, choice([{}, []]), None),
            ({}, anything, [True, False] if anything is True else None),
        ]
        return choice(kinds)

    def object(self, path: str, depth: int) -> dict[str, Any]:
        keys = self.random.sample(_KEYS, self.random.randint(1, 4))
        properties: dict[str, Any] = {}
        self.write("{")
        for number, key in enumerate(keys):
            self.write(("," if number else "") + self.space + self.dumps(key) + ":" + self.space)
            plain = key.replace("_", "a").isalnum() and not key[0].isdigit()
            step = (f".{key}" if path else key) if plain else f"[{json.dumps(key, ensure_ascii=False)}]"
            properties[key] = self.value(path + step, depth + 1)
        self.write(self.space + "}")
        return {"type": "object", "properties": properties, "required": keys}

    def array(self, path: str, depth: int) -> dict[str, Any]:
        items: list[dict[str, Any]] = []
        self.write("[")
        for number in range(self.random.randint(1, 3)):
            self.write(("," if number else "") + self.space)
            items.append(self.value(f"{path}[{number}]", depth + 1))
        self.write("]")
        return {"type": "array", "prefixItems": items}

    def cut(self) -> None:
        """Cut the text into tokens."""
        text, choice, at = self.document.text, self.random.choice, 0
        longest = choice([1, 3, 8, 30])
        while at < len(text):
            end = min(at + self.random.randint(1, longest), len(text))
            if not text[at].isascii() and self.random.random() < 0.5:  # a character that takes two tokens
                self.add(choice(["", "\ufffd"]), at, at + 1)
                self.add(choice(["", "\ufffd"]), at, at + 1)
                end = at + 1
            elif not text[end - 1].isascii() and end - at > 1 and self.random.random() < 0.5:
                self.add(text[at : end - 1] + choice(["", "\ufffd"]), at, end)
                self.add("\ufffd", end - 1, end)
            else:
                self.add(text[at:end], at, end)
            at = end
        if self.random.random() < 0.3:
            self.add(choice(["", "<|im_end|>", "\n"]), at, at)
        if self.random.random() < 0.2:  # the server has removed the space
            self.add("\n", 0, 0, first=True)

    def add(self, text: str, start: int, end: int, *, first: bool = False) -> None:
        token: dict[str, Any] = {"text": text, "id": 1, "logProb": -self.random.expovariate(2)}
        if self.random.random() < 0.02:
            token["logProb"] = None
        elif self.random.random() < 0.01:
            del token["logProb"]
        candidates = [self.random.choice(_OTHERS), text]
        for leaf in self.document.leaves:
            if start < leaf.end and end > leaf.start:
                other = self.random.choice([*(leaf.members or []), 5, 4.5, -1, True])
                changed = self.document.text[: leaf.start] + self.dumps(other) + self.document.text[leaf.end :]
                if changed[:start] == self.document.text[:start]:
                    candidates.append(changed[start : start + self.random.randint(1, 12)])
        token["candidates"] = [{"text": each, "id": 2, "logProb": -self.random.expovariate(1)} for each in candidates]
        at = 0 if first else len(self.document.tokens)
        self.document.tokens.insert(at, token)
        self.document.spans.insert(at, (start, end))


def generated(seed: int) -> Document:
    """Return a document."""
    writer = _Writer(seed)
    schema = writer.value("", 0)
    writer.document.schema = {**schema, "$defs": writer.definitions} if writer.definitions else schema
    writer.cut()
    return writer.document


def recomputed(document: Document) -> dict[str, tuple[float, Any, float | None]]:
    """Return probability, alternative and its probability of each field."""
    found: dict[str, tuple[float, Any, float | None]] = {}
    placed = list(zip(document.tokens, document.spans, strict=True))
    for leaf in document.leaves:
        own = [
            (token, start) for token, (start, end) in placed if {*range(start, end)} & {*range(leaf.start, leaf.end)}
        ]
        if any("logProb" not in token for token, _ in own):
            continue
        probability = 1.0
        others: list[tuple[float, Any]] = []
        for token, start in own:
            for candidate in token.get("candidates", ()) if probability else ():
                likely = probability * math.exp(candidate["logProb"])
                others += [(likely, other) for other in _others(document.text, leaf, start, candidate["text"])]
            probability *= 0.0 if token["logProb"] is None else math.exp(token["logProb"])
        best = max(others, key=lambda each: each[0], default=(None, None))
        found[leaf.path] = (probability, best[1], best[0])
    return found


def _others(text: str, leaf: Leaf, start: int, candidate: str) -> list[Any]:
    """Return the other value that the text begins if the token that begins at `start` is replaced."""
    head = text[: leaf.start].rstrip(_SPACE) if start <= leaf.start else text[: leaf.start]
    changed = text[:start] + candidate
    if not changed.startswith(head):
        return []
    begun = changed[len(head) :].lstrip(_SPACE) if start <= leaf.start else changed[len(head) :]
    written = text[leaf.start : leaf.end]
    if not begun or _fits(begun, written):
        return []
    if leaf.members is not None:
        members = [each for each in leaf.members if json.dumps(each) != json.dumps(leaf.value)]
        return [each for each in members if _fits(begun, json.dumps(each, ensure_ascii=False))][:1]
    if isinstance(leaf.value, bool) or not isinstance(leaf.value, int | float):
        return []
    digits = "".join(takewhile("0123456789+-.eE".__contains__, begun))
    rest = begun[len(digits) :]
    try:
        number = json.loads(digits)
    except ValueError:
        return []
    return [] if number == leaf.value or (rest and rest[0] not in ",]}" + _SPACE) else [number]


def _fits(begun: str, value: str) -> bool:
    return value.startswith(begun) or (begun.startswith(value) and begun[len(value)] in ",]}" + _SPACE)
