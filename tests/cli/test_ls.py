"""`ls`: which downloaded models it lists, and how."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.cli._loaded_models import downloaded_models
from lmstudio_integrations.cli._tables import downloaded_lines
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import EMBEDDER, LARGE, SMALL, Command, cells
from tests.client.transcript_server import reading
from tests.protocol.transcripts import AUTHENTICATION, LLM_INFO, Line, lines_of

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]


def test_downloaded_models_are_listed_by_kind(managed: Emulator, command: Command) -> None:
    managed.load(SMALL)
    status, out, err = command("ls")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert cells(lines[0]) == ["LLM", "PARAMS", "ARCH", "SIZE", "ABILITIES"]
    assert cells(lines[3]) == [SMALL, "3M", "tiny", "2.50", "MB", "tools,", "vision", "✓", "LOADED"]
    assert cells(lines[2]) == [LARGE, "7B", "scripted", "4.00", "GB", "tools"]
    assert cells(lines[1]) == ["stuck", "scripted", "1.00", "MB", "tools"]
    assert cells(lines[4]) == ["EMBEDDING", "ARCH", "SIZE"]
    assert cells(lines[5]) == [EMBEDDER, "scripted", "90.00", "kB"]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, ["LLM", "PARAMS", "ARCH", "SIZE", "ABILITIES"]),
        (50, ["LLM", "PARAMS", "SIZE", "ABILITIES"]),
        (20, ["LLM"]),
    ],
)
def test_a_table_leaves_out_what_a_narrow_terminal_has_no_space_for(
    managed: Emulator, width: int, header: list[str]
) -> None:
    with Client(managed.address) as client:
        lines = downloaded_lines("LLM", downloaded_models(client, "llm"), [], {}, width)
    assert cells(lines[0]) == header
    assert max(map(len, lines)) <= width


def test_two_instances_of_a_model_are_counted(managed: Emulator, command: Command) -> None:
    managed.load(SMALL)
    managed.load(SMALL, identifier="again")
    assert "LOADED (2)" in command("ls")[1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--llm"], {SMALL, LARGE, "stuck"}),
        (["--embedding"], {EMBEDDER}),
        ([], {SMALL, LARGE, "stuck", EMBEDDER}),
        (["--llm", "--embedding"], {SMALL, LARGE, "stuck", EMBEDDER}),
    ],
)
def test_only_models_of_the_requested_kind_are_listed(command: Command, flags: list[str], expected: set[str]) -> None:
    status, out, err = command("ls", "--json", *flags)
    assert (status, err) == (0, "")
    assert {info["modelKey"] for info in json.loads(out)} == expected


def variant(quantization: str, size: int) -> dict[str, Any]:
    bits = int(quantization[1])
    key = f"m1@{quantization.lower()}"
    return {**LLM_INFO, "modelKey": key, "sizeBytes": size, "quantization": {"name": quantization, "bits": bits}}


VARIANTS = [variant("Q8_0", 4_000_000_000), variant("Q4_K_M", 2_500_000_000)]


def with_variants(reply: dict[str, Any]) -> list[Line]:
    """Return a conversation with a server whose model has two variants, of which `m1@q4_k_m` is selected."""
    keys = [info["modelKey"] for info in VARIANTS]
    listed = {**LLM_INFO, "variants": keys, "selectedVariant": keys[1]}
    return [
        *lines_of(AUTHENTICATION),
        Line("client", {"type": "rpcCall", "endpoint": "listDownloadedModels", "callId": 1}),
        Line("server", {"type": "rpcResult", "callId": 1, "result": [listed]}),
        Line(
            "client",
            {
                "type": "rpcCall",
                "endpoint": "listDownloadedModelVariants",
                "callId": 2,
                "parameter": {"modelKey": "m1"},
            },
        ),
        Line("server", reply),
    ]


FOUND: dict[str, Any] = {"type": "rpcResult", "callId": 2, "result": VARIANTS}


@pytest.mark.parametrize("name", ["m1", "M1@q8_0"])
def test_the_variants_of_a_model_are_listed_and_the_selected_one_is_marked(
    run: Run, capsys: Capture, name: str
) -> None:
    with reading(with_variants(FOUND)) as host:
        assert run("ls", name, "--host", host) == 0
    out, err = capsys.readouterr()
    assert [cells(line) for line in out.splitlines()] == [
        ["VARIANT", "QUANT", "FORMAT", "SIZE"],
        ["m1@q4_k_m", "Q4_K_M", "gguf", "2.50", "GB", "✓", "SELECTED"],
        ["m1@q8_0", "Q8_0", "gguf", "4.00", "GB"],
    ]
    assert err == ""


def test_the_variants_of_a_model_are_printed_as_json(run: Run, capsys: Capture) -> None:
    with reading(with_variants(FOUND)) as host:
        assert run("ls", "m1", "--json", "--host", host) == 0
    assert [info["modelKey"] for info in json.loads(capsys.readouterr().out)] == ["m1@q8_0", "m1@q4_k_m"]


def test_a_server_that_does_not_know_variants_is_named_as_too_old(run: Run) -> None:
    warning = "Received rpcCall for unknown endpoint, endpoint = listDownloadedModelVariants"
    with reading(with_variants({"type": "communicationWarning", "warning": warning})) as host:
        error = str(run("ls", "m1", "--host", host))
    assert error.startswith("Error: List of variants: the server does not accept 'listDownloadedModelVariants'")
    assert "update LM Studio" in error


def test_a_model_without_variants_is_a_note_and_no_error(command: Command) -> None:
    assert command("ls", SMALL) == (0, "", f"{SMALL} has no variants; `lmsi load {SMALL}` loads it.\n")
    assert command("ls", SMALL, "--json") == (0, "[]\n", "")


def test_variants_of_an_unknown_model_are_an_error_that_suggests_a_similar_one(command: Command) -> None:
    error = str(command("ls", "vendor/smal1")[0])
    assert error.startswith(f"Error: no downloaded model matches 'vendor/smal1'; did you mean {SMALL!r}")
    assert command("ls", SMALL, "--llm")[0] == 2


def test_an_empty_list_is_a_note_and_no_error(run: Run, capsys: Capture) -> None:
    with Emulator([]) as empty:
        assert run("ls", "--host", empty.address) == 0
        listed = capsys.readouterr()
        assert run("ls", "--json", "--host", empty.address) == 0
    assert listed.out == ""
    assert "`lmsi get MODEL` downloads one" in listed.err
    assert json.loads(capsys.readouterr().out) == []
