"""`embed` after a stop: nothing is lost, nothing doubled, and another run continues only the same work."""

import errno
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.cli import INTERRUPTED, _embed
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.terminal import TIMEOUT, started
from tests.cli.test_embed import read_rows, write_parquet
from tests.support.gate import AT_THE_GATE, Gate

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
MODEL, OTHER = "an-embedder", "other"
TEXTS = [f"text {number}" for number in range(60)]
JOURNAL = Path("out.jsonl.partial")
DISK_FULL = OSError(errno.ENOSPC, "No space left on device")

outputs = pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A server with two embedding models, of which the smaller one holds up a text at a gate."""
    rule = {"when": {"last": "^held$"}, "then": [AT_THE_GATE]}
    models = [
        ModelEntry(key=MODEL, kind="embedding", embedding_length=3, rules=(rule,), slots=10, size_bytes=1),
        ModelEntry(key=OTHER, kind="embedding", embedding_length=3, size_bytes=2),
    ]
    with Emulator(models, engines=gate.engines()) as running:
        yield running


@pytest.fixture
def embed(run: Run, server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embed` on the server to its end, in batches of 10, in a folder with inputs."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    Path("in.jsonl").write_text("\n".join(json.dumps({"text": text, "": 1}) for text in TEXTS), encoding="utf-8")
    write_parquet("in.parquet", {"id": range(60), "text": TEXTS})

    def embed_input(*arguments: str) -> int | str | None:
        with Path("in.txt").open(encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            return run("embed", "--batch-size", "10", "--host", server.address, *arguments)

    return embed_input


@pytest.fixture
def at_30_rows(monkeypatch: pytest.MonkeyPatch, embed: Run) -> Callable[..., int | str | None]:
    """Run `embed`, and call a function after 30 of 60 rows."""

    def embed_and_call(call: Callable[[], object], *arguments: str) -> int | str | None:
        embed_batch = _embed.embed_batch
        number = 0

        def embed_or_call(*batch: Any) -> Any:
            nonlocal number
            number += 1
            if number == 4:
                call()
            return embed_batch(*batch)

        with monkeypatch.context() as patch:
            patch.setattr(_embed, "embed_batch", embed_or_call)
            return embed(*arguments)

    return embed_and_call


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise DISK_FULL


@pytest.fixture
def stopped(at_30_rows: Run) -> None:
    """An interrupted run that has written 30 of 60 rows."""
    assert at_30_rows(interrupt, "in.txt", "-o", "out.jsonl") == INTERRUPTED


def texts_in(output: str) -> list[str]:
    rows = read_rows(output)
    assert all(len(row["embedding"]) == 3 for row in rows)
    return [row["text"] for row in rows]


def sent(server: Emulator) -> list[str]:
    return [record.text for record in server.embedded_texts]


@pytest.mark.parametrize(
    ("stop", "input_", "output"),
    [
        (interrupt, "in.txt", "out.jsonl"),
        (fail, "in.jsonl", "out.jsonl"),
        (interrupt, "in.parquet", "out.parquet"),
        (fail, "-", "out.parquet"),
    ],
)
def test_the_same_command_continues_and_embeds_no_text_twice(
    embed: Run, at_30_rows: Run, server: Emulator, capsys: Capture, stop: Callable[[], None], input_: str, output: str
) -> None:
    code = at_30_rows(stop, input_, "-o", output)
    assert code == (INTERRUPTED if stop is interrupt else "Error: No space left on device")
    assert not Path(output).exists()
    assert capsys.readouterr().err == "Stopped after 30 rows; run the same command again to continue.\n"
    assert embed(input_, "-o", output) == 0
    assert capsys.readouterr().err == f"Resuming after 30 rows.\nWrote 60 rows to {output}.\n"
    assert texts_in(output) == sent(server) == TEXTS
    assert [path.name for path in Path().glob("out*")] == [output]
    if input_ == "in.parquet":
        assert [row["id"] for row in read_rows(output)] == list(range(60))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "output"), [("SIGINT", "out.jsonl"), ("SIGKILL", "out.parquet")])
def test_a_process_that_is_ended_loses_no_batch_that_was_written(
    embed: Run, server: Emulator, gate: Gate, name: str, output: str
) -> None:
    texts = [*TEXTS[:25], "held", *TEXTS[26:]]
    Path("in.txt").write_text("\n".join(texts), encoding="utf-8")
    arguments = "embed", "in.txt", "--batch-size", "10", "-o", output, "--host", server.address
    with started(*arguments, cwd=Path.cwd()) as process:
        server.wait_for(lambda: len(server.embedded_texts) == 30, timeout=TIMEOUT)
        process.send_signal(getattr(signal, name))
        process.communicate(timeout=TIMEOUT)
    gate.open()
    assert embed("in.txt", "-o", output) == 0
    assert texts_in(output) == texts
    assert [text for text, times in Counter(sent(server)).items() if times > 1] == texts[20:30]


@pytest.mark.parametrize(("cut", "tail"), [(1, b""), (30, b'{"text"'), (400, b"\0" * 100)])
def test_of_an_interrupted_write_no_half_row_is_counted(embed: Run, stopped: None, cut: int, tail: bytes) -> None:
    JOURNAL.write_bytes(JOURNAL.read_bytes()[:-cut] + tail)
    assert embed("in.txt", "-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


@outputs
def test_a_torn_line_after_the_last_row_is_not_in_the_output(
    embed: Run, server: Emulator, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: fail())
        assert embed("in.txt", "-o", output) == "Error: No space left on device"
    assert not Path(output).exists()
    with Path(f"{output}.partial").open("ab") as file:
        file.write(b'{"text"')
    assert embed("in.txt", "-o", output) == 0
    assert texts_in(output) == sent(server) == TEXTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.txt", "--field", "body"), "it was begun with another --field (text, now body)"),
        (("in.txt", "--vector-field", "v"), "another --vector-field (embedding, now v)"),
        (("in.txt", "--model-field", "m"), "another --model-field (model, now m)"),
        (("in.txt", "--length-policy", "truncate"), "another --length-policy (error, now truncate)"),
        (("in.txt", "--prefix", "query: "), "another --prefix (, now query: )"),
        (("in.txt", "--model", OTHER), f"another --model ({MODEL}, now {OTHER})"),
        (("in.jsonl",), "its row 1 is not that of the input"),
        (("changed.txt",), "its row 30 is not that of the input"),
        (("shorter.txt",), "its row 30 is not that of the input"),
    ],
)
def test_a_run_with_other_settings_or_rows_does_not_continue(
    embed: Run, stopped: None, arguments: tuple[str, ...], message: str
) -> None:
    Path("changed.txt").write_text("\n".join([*TEXTS[:29], "text 29 changed", *TEXTS[30:]]), encoding="utf-8")
    Path("shorter.txt").write_text("\n".join(TEXTS[:29]), encoding="utf-8")
    code = embed(*arguments, "-o", "out.jsonl", "--overwrite")
    assert isinstance(code, str)
    assert message in code
    assert "repeat the command as it was, or remove the file to start over" in code
    assert embed("in.txt", "-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


def test_a_run_continues_with_its_model_also_if_another_one_is_loaded_by_now(
    embed: Run, server: Emulator, stopped: None
) -> None:
    server.unload(MODEL)
    server.load(OTHER)
    assert embed("in.txt", "-o", "out.jsonl") == 0
    assert {row["model"] for row in read_rows("out.jsonl")} == {MODEL}


def test_an_interrupted_overwrite_keeps_the_old_file_and_continues(embed: Run, at_30_rows: Run) -> None:
    Path("out.jsonl").write_text("old", encoding="utf-8")
    assert at_30_rows(interrupt, "in.txt", "-o", "out.jsonl", "--overwrite") == INTERRUPTED
    assert Path("out.jsonl").read_text(encoding="utf-8") == "old"
    assert embed("in.txt", "-o", "out.jsonl", "--overwrite") == 0
    assert texts_in("out.jsonl") == TEXTS


def test_of_two_processes_the_one_that_is_late_ends(embed: Run, at_30_rows: Run) -> None:
    def write_a_row() -> None:
        with JOURNAL.open("ab") as file:
            file.write(JOURNAL.read_bytes().splitlines(keepends=True)[-1].replace(b"text 29", b"text 30"))

    code = at_30_rows(write_a_row, "in.txt", "-o", "out.jsonl")
    assert isinstance(code, str)
    assert "another process is writing" in code
    assert embed("in.txt", "-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


def test_a_file_of_others_is_not_touched(embed: Run) -> None:
    JOURNAL.write_text("mine", encoding="utf-8")
    code = embed("in.txt", "-o", "out.jsonl", "--overwrite")
    assert isinstance(code, str)
    assert "cannot continue" in code
    assert JOURNAL.read_text(encoding="utf-8") == "mine"
