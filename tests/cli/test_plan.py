"""`plan`: what it prints, and its exit status; and how commands show the plan of an error."""

import json
from collections.abc import Callable, Iterator

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli._formatting import report
from lmstudio_integrations.client.models.fitting import _too_large
from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import Piped

CATALOG = {
    "memory_gib": 8,
    "model": [
        {"key": "small", "memory_gib": 3},
        {"key": "large", "memory_gib": 7},
        {"key": "huge", "memory_gib": 20},
        {"key": "name@4", "memory_gib": 1},
        {"key": "name:2", "memory_gib": 1},
        {"key": "embed", "kind": "embedding", "memory_gib": 1},
    ],
    "device": [{"name": "box", "memory_gib": 32}],
}

pytestmark = pytest.mark.leaf("devices")

Plan = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server on which another program has loaded `small` without a TTL, and on which nothing changes."""
    with Emulator(catalog=CATALOG) as server:
        server.load("small")
        yield server
        assert [info.identifier for info in server.loaded()] == ["small"]


@pytest.fixture
def plan(piped: Piped, server: Emulator) -> Plan:
    return lambda *arguments: piped("plan", *arguments, "--host", server.address)


@pytest.mark.parametrize(
    ("arguments", "status", "row"),
    [
        (["small"], 0, "small 4096 4 1024 3.2 GiB loaded"),
        (["large:1024@2"], 1, "large 1024 2 512 7.0 GiB does not fit (estimated)"),
        (["large", "--any"], 0, "large default 4 7.2 GiB fits (estimated) once small is unloaded"),
        (["huge:2048", "--device", "box"], 0, "huge 2048 4 512 20.1 GiB fits (estimated)"),
        (["small:16384"], 1, "small 4096 4 1024 3.2 GiB loaded; 16384 tokens were requested"),
        (["small:1024"], 0, "small 4096 4 1024 3.2 GiB loaded; 1024 tokens were requested"),
        (
            ["huge:999999", "--device", "box"],
            1,
            "huge 32768 4 8192 21.5 GiB fits (estimated); 999999 tokens were requested",
        ),
        (["arge:1024", "--any"], 0, "large 1024 4 256 7.0 GiB fits (estimated) once small is unloaded"),
        (["name@4", "--device", "box"], 0, "name@4 default 4 1.2 GiB fits (estimated)"),
        (["name:2:1024", "--device", "box"], 0, "name:2 1024 4 256 1.0 GiB fits (estimated)"),
        (["large", "small", "--any"], 1, "small 4096 4 1024 3.2 GiB loaded"),
    ],
)
def test_a_plan_is_a_table_whose_verdict_is_the_exit_status(
    plan: Plan, arguments: list[str], status: int, row: str
) -> None:
    exit_status, out, err = plan(*arguments)
    assert (exit_status, err) == (status, "")
    assert row in [" ".join(line.split()) for line in out.splitlines()]


def test_a_plan_is_printed_as_json(plan: Plan) -> None:
    status, out, _ = plan("large:1024", "--any", "--json")
    printed = json.loads(out)
    assert (status, printed["fits"], printed["capacity_bytes"]) == (0, True, 8 * 1024**3)
    assert [(each["model_key"], each["context_length"], each["evicts"]) for each in printed["models"]] == [
        ("large", 1024, ["small"])
    ]
    assert [each["identifier"] for each in printed["loaded"]] == ["small"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["smull"], "downloaded are small, large, huge, name@4, name:2, embed; download it with"),
        (
            ["small:32k"],
            "'small:32k' is no planned model; write MODEL[:CONTEXT][@SLOTS] with whole numbers above 0, such as small:",
        ),
        (["small@0"], "'small@0' is no planned model; write MODEL[:CONTEXT][@SLOTS] with whole numbers above 0"),
        (["small@@2"], "'small@@2' is no planned model"),
        (["embed:2048@4"], "'embed:2048@4' is an embedding model, which has no slots; leave out @ and the number"),
        (["small", "--device", "away"], "the device 'away' is not linked to this server"),
    ],
)
def test_what_cannot_be_planned_is_an_error(plan: Plan, arguments: list[str], problem: str) -> None:
    status, out, err = plan(*arguments)
    assert (status, out) == (1 if "server" in problem or "downloaded" in problem else 2, "")
    assert problem in err


def test_the_plan_of_an_error_is_a_table_before_its_suggestion() -> None:
    plan = lms.MemoryPlan(host="a:1", device=None, capacity_bytes=None, models=())
    text = f"No room\n{plan}\n  evicted before: 'a', which was loaded again\n  suggestion: use less"
    assert report(lms.LMStudioInsufficientResourcesError(text, title="No room", plan=plan)).splitlines() == [
        "Error: No room",
        "  a:1: memory for models: unknown",
        "  MODEL  CONTEXT  SLOTS  EACH  MEMORY",
        "  evicted before: 'a', which was loaded again",
        "  suggestion: use less",
    ]


def test_the_suggestion_of_a_plan_is_about_commands() -> None:
    model = lms.PlannedModel(
        model_key="a",
        kind="llm",
        context_length=512,
        slots=1,
        memory_bytes=1,
        fit="too_large",
        basis="seen",
        largest_context_length=256,
    )
    stays = lms.LoadedModel(
        identifier="b", model_key="b", context_length=1, stays_because="it was loaded without a TTL"
    )
    plan = lms.MemoryPlan(host="a:1", device=None, capacity_bytes=None, models=(model,), loaded=(stays,))
    suggestion = report(_too_large(plan, fits_later=False)).splitlines()[-1]
    assert suggestion == "  suggestion: load it with --context-length=256, or unload one of those that stay"
