"""The scripted models that all integrations talk to, and an address where nothing listens."""

from typing import Any

from lmstudio_integrations.emulator import ModelEntry
from tests.support.endless import ENDLESS

CHAT, OTHER, EMBEDDING = "chatty", "other", "vectors"
UNREACHABLE = "127.0.0.1:9"
CONTEXT_LENGTH, EMBEDDING_LENGTH = 8192, 16

CITY = {"tool": "weather", "arguments": {"city": "Oslo"}, "id": "c1"}
BROKEN = {**CITY, "malformed": '{"city": "Os'}
PERSON = '{"name": "Ann Lee", "age": 7}'
PENSIVE = ({"reasoning": "An {"}, {"text": '{"name": "A", "age": 1}'})
NEEDED, NEXT = "\nThe weather \t comes first.\n", "\nNow the people.\n"
"""The reasoning before the first and the second call of `ponder`."""
PONDERED = (f"<think>{NEEDED}</think>\n\nI look. ", f"<think>{NEXT}</think>")
"""What the model writes before these calls."""
LONG = " ".join(f"word{number}" for number in range(200))
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"last": "^count"}, "then": [{"text": " ".join(str(n) for n in range(10))}]},
    {"when": {"last": "^for ever"}, "then": [{"text": ENDLESS}]},
    {"when": {"last": "^nothing"}, "then": []},
    {"when": {"last": "^slow"}, "then": [{"text": "so "}, {"wait": 0.05}, {"text": "slow"}]},
    {"when": {"last": "^stall"}, "then": [{"text": "wait "}, {"fault": "stall"}]},
    {"when": {"last": "^think only"}, "then": [{"reasoning": "Hmm, well."}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done now."}]},
    {"when": {"last": "^weather", "tools": ["weather"]}, "then": [{"text": "I look. "}, CITY]},
    {"when": {"last": "^ponder at length", "tools": ["weather"]}, "then": [{"reasoning": LONG}, CITY]},
    {"when": {"last": "^ponder", "tools": ["weather"]}, "then": [
        {"reasoning": NEEDED}, {"text": "\n\nI look. "}, CITY,
    ]},
    {"when": {"last": "^rain", "tools": ["population"]}, "then": [
        {"reasoning": NEXT}, {"tool": "population", "arguments": {"city": "Oslo"}, "id": "c2"},
    ]},
    {"when": {"last": "^both", "tools": ["weather"]}, "then": [CITY, {**CITY, "id": "c2"}]},
    {"when": {"last": "^same id", "tools": ["weather"]}, "then": [CITY, CITY]},
    {"when": {"last": "^broken", "tools": ["weather"]}, "then": [{"text": "So: "}, BROKEN]},
    {"when": {"last": "This does not fit", "structured": True}, "then": [{"text": "I cannot."}]},  # nor the second time
    {"when": {"last": "^bare", "tools": ["now"]}, "then": [{"tool": "now"}]},
    {"when": {"last": "^box", "tools": ["Box_int_"]}, "then": [{"tool": "Box_int_", "arguments": {"value": 3}}]},
    {"when": {"last": "^call person", "tools": ["Person"]}, "then": [
        {"tool": "Person", "arguments": {"name": "Ann Lee", "age": 7}, "id": "p1"},
    ]},
    {"when": {"last": "^either", "tools": ["weather"]}, "then": [CITY]},
    {"when": {"last": "^either", "tools": ["population"]}, "then": [
        {"tool": "population", "arguments": {"city": "Oslo"}, "id": "c3"},
    ]},
    {"when": {"last": "^silent"}, "then": [{"text": "I will not."}]},
    {"when": {"role": "tool", "tools": ["Person"]}, "then": [
        {"tool": "Person", "arguments": {"name": "Ann Lee", "age": 7}, "id": "p1"},
    ]},
    {"when": {"role": "tool"}, "then": [{"text": "The tool said {last}."}]},
    {"when": {"last": "^fail"}, "then": [{"error": "the engine gave up", "suggestion": "try another model"}]},
    {"when": {"last": "^drop"}, "then": [{"text": "going "}, {"fault": "drop"}]},
    {"when": {"last": "^person", "structured": True}, "then": [{"text": PERSON}]},
    {"when": {"last": "^long person", "structured": True}, "then": [{"text": f'{{"name": "{LONG * 6}", "age": 7}}'}]},
    {"when": {"last": "^half", "structured": True}, "then": [{"text": '{"name": "Ann", "ag'}]},
    {"when": {"last": "^pensive", "structured": True}, "then": [*PENSIVE]},
)  # fmt: skip
SLOWLY: dict[str, Any] = {"when": {"last": "^slow"}, "then": [{"wait": 0.05}]}
MODELS = (
    ModelEntry(key=CHAT, vision=True, context_length=CONTEXT_LENGTH, rules=RULES),
    ModelEntry(key=OTHER, rules=RULES),
    ModelEntry(key=EMBEDDING, kind="embedding", embedding_length=EMBEDDING_LENGTH, rules=(SLOWLY,)),
)
