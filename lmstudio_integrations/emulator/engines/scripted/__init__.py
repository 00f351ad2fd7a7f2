"""The scripted engine: a model that follows rules, the same way every time.

Other modules of the package import from here only: `engine` loads models and paces them, `playback` turns a
rule into events, `writer` writes tokens, `rules` checks and matches rules.
"""

from lmstudio_integrations.emulator.engines.scripted.engine import ScriptedEngine, ScriptedModel
from lmstudio_integrations.emulator.engines.scripted.rules import (
    ANY_TOOL,
    Error,
    InjectFault,
    Reasoning,
    Relevance,
    Rule,
    Step,
    Text,
    ToolCall,
    Wait,
    When,
    parse_rules,
)

__all__ = [
    "ANY_TOOL",
    "Error",
    "InjectFault",
    "Reasoning",
    "Relevance",
    "Rule",
    "ScriptedEngine",
    "ScriptedModel",
    "Step",
    "Text",
    "ToolCall",
    "Wait",
    "When",
    "parse_rules",
]
