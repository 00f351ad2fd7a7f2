"""`ps`: how it lists the loaded models."""

import json

import pytest

from lmstudio_integrations.cli._tables import time_to_live
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.models import LlmInstanceInfo
from tests.cli.managed import EMBEDDER, SMALL, Command, cells


def test_loaded_models_are_listed_with_their_context_and_ttl(managed: Emulator, command: Command) -> None:
    managed.load(SMALL, identifier="mine")
    managed.load(EMBEDDER, ttl=600)
    status, out, err = command("ps")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert cells(lines[0]) == ["IDENTIFIER", "MODEL", "STATUS", "SIZE", "CONTEXT", "TTL"]
    assert cells(lines[1])[:6] == ["mine", SMALL, "IDLE", "2.50", "MB", "4096"]
    assert cells(lines[2])[:2] == [EMBEDDER, EMBEDDER]
    assert lines[2].rstrip().endswith("/ 10m")


def test_loaded_models_are_printed_as_json(managed: Emulator, command: Command) -> None:
    managed.load(SMALL, identifier="mine")
    (info,) = json.loads(command("ps", "--json")[1])
    assert (info["identifier"], info["modelKey"], info["contextLength"]) == ("mine", SMALL, 4096)


def test_that_nothing_is_loaded_is_a_note(command: Command) -> None:
    assert command("ps") == (0, "", "No model is loaded; `lmsi load MODEL` loads one.\n")
    assert json.loads(command("ps", "--json")[1]) == []


@pytest.mark.parametrize(
    ("ttl", "used", "expected"),
    [
        (None, None, ""),
        (600_000, None, "10m / 10m"),
        (600_000, 1_000_000, "8m 20s / 10m"),
        (600_000, 2_000_000, "10m / 10m"),
        (600_000, 0, "0s / 10m"),
    ],
)
def test_the_remaining_time_is_within_the_ttl(ttl: int | None, used: int | None, expected: str) -> None:
    info = LlmInstanceInfo(
        type="llm",
        model_key=SMALL,
        format="gguf",
        display_name=SMALL,
        path=SMALL,
        size_bytes=0,
        max_context_length=1,
        identifier=SMALL,
        instance_reference="r",
        context_length=1,
        ttl_ms=ttl,
        last_used_time=used,
    )
    assert time_to_live(info, now=1100.0) == expected
