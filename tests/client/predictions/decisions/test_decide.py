"""`decide`: typed questions about a state, answered by the first token of a language model."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from tests.client.both import BOTH, Way  # noqa: TC001 - a fixture reads it

RULES: list[dict[str, Any]] = [
    {"when": {"last": "refund\\?"}, "then": [{"probabilities": {"yes": 0.6, "Yes": 0.2, "no": 0.2}}]},
    {"when": {"last": "A\\. billing"}, "then": [{"probabilities": {"A": 0.9, "B": 0.06, "C": 0.04}}]},
    {"when": {"last": "B\\. billing"}, "then": [{"probabilities": {"A": 0.3, "B": 0.5, "C": 0.2}}]},
    {"when": {"last": "C\\. billing"}, "then": [{"probabilities": {"A": 0.3, "B": 0.3, "C": 0.4}}]},
    {"when": {"last": "How angry"}, "then": [{"probabilities": {"A": 0.5, "B": 0.5}}]},
    {"when": {"last": "mumble"}, "then": [{"probabilities": {"Well": 1.0}}]},
]
