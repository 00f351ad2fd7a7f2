"""`embed` after an interrupt: nothing is lost, nothing doubled, and another run continues only the same work."""

import errno
import json
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.cli import INTERRUPTED
from lmstudio_integrations.cli._embed.output import FILES
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.terminal import TIMEOUT, started
from tests.cli.test_embed import read_lines, read_parquet
from tests.support.gate import AT_THE_GATE, Gate

pytestmark = pytest.mark.slow

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
MODEL, OTHER = "an-embedder", "other"
TEXTS = [f"text {number}" for number in range(60)]
HELD = "text 25"
"""The text that is held up at the gate."""
SIZE = 10
"""Rows of a batch."""

posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signals")
outputs = pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])


class Held:
    """A server that holds up one text at a gate.

    Attributes:
        server: The server.
        gate: Lets the text pass.
    """

    def __init__(self, server: Emulator, gate: Gate) -> None:
        self.server = server
        self.gate = gate

    @property
    def embedded(self) -> list[str]:
        """All texts that were sent."""
        return [record.text for record in self.server.embedded_texts]

    def wait_for_the_held_text(self) -> None:
        """Wait until the text is at the gate, with its whole batch."""
        self.server.wait_for(lambda: len(self.server.embedded_texts) == 3 * SIZE, timeout=TIMEOUT)


@pytest.fixture
def held() -> Iterator[Held]:
    """A server that holds up one text."""
    gate = Gate()
    rule = {"when": {"last": f"^{HELD}$"}, "then": [AT_THE_GATE]}
    models = [
        ModelEntry(key=MODEL, kind="embedding", embedding_length=3, rules=(rule,), slots=SIZE, size_bytes=1),
        ModelEntry(key=OTHER, kind="embedding", embedding_length=3, size_bytes=2),
    ]
    with Emulator(models, engines=gate.engines()) as server:
        yield Held(server, gate)


@pytest.fixture
def embed(run: Run, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embed` on the server to its end, in a folder with an input."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return lambda *arguments: run(
        "embed", "in.txt", "--batch-size", str(SIZE), "--host", held.server.address, *arguments
    )


@contextmanager
def process_at_the_gate(held: Held, *arguments: str) -> Generator[Any]:
    """Start `embed` as a process, and wait until it waits for the held text."""
    command = "embed", "in.txt", "--batch-size", str(SIZE), "--host", held.server.address, *arguments
    with started(*command, cwd=Path.cwd()) as process:
        held.wait_for_the_held_text()
        yield process


@pytest.fixture
def interrupted(embed: Run, held: Held) -> Callable[..., None]:
    """Interrupt a run after 30 of 60 rows."""

    def interrupt_run(*arguments: str) -> None:
        with process_at_the_gate(held, *arguments) as process:
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "Finishing the current batch; press Ctrl-C again to stop at once.\n"
            held.gate.open()
            _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == INTERRUPTED
        assert err == "Interrupted after 30 rows; run the same command again to continue.\n"

    return interrupt_run


def texts_in(output: str) -> list[str]:
    rows = read_parquet(output).to_pylist() if output.endswith("parquet") else read_lines(output)
    assert all(len(row["embedding"]) == 3 for row in rows)
    return [row["text"] for row in rows]


@posix
@outputs
def test_after_ctrl_c_the_same_command_continues_and_embeds_no_text_twice(
    embed: Run, held: Held, interrupted: Callable[..., None], capsys: Capture, output: str
) -> None:
    interrupted("-o", output)
    assert not Path(output).exists()
    assert embed("-o", output) == 0
    assert "Resuming after 30 rows." in capsys.readouterr().err
    assert texts_in(output) == TEXTS
    assert held.embedded == TEXTS
    assert [path.name for path in Path().glob("out*")] == [output]


@posix
@outputs
def test_after_a_kill_the_same_command_continues_with_the_unfinished_batch(embed: Run, held: Held, output: str) -> None:
    with process_at_the_gate(held, "-o", output) as process:
        process.kill()
        process.wait(timeout=TIMEOUT)
    held.gate.open()
    assert embed("-o", output) == 0
    assert texts_in(output) == TEXTS
    times = Counter(held.embedded)
    kept = 20 if output.endswith("jsonl") else 0  # a part of a Parquet file was not complete yet
    assert {text for text, number in times.items() if number > 1} == set(TEXTS[kept:30])


@posix
def test_a_second_ctrl_c_stops_at_once(embed: Run, held: Held) -> None:
    with process_at_the_gate(held, "-o", "out.jsonl") as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("Finishing")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == INTERRUPTED
    assert err == "Interrupted after 20 rows; run the same command again to continue.\n"
    held.gate.open()
    assert embed("-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


@posix
@pytest.mark.parametrize("torn", [b'{"text": "text 30", "embedd', b"\0" * 100, b""])
def test_a_torn_last_line_is_written_again(
    embed: Run, held: Held, interrupted: Callable[..., None], torn: bytes
) -> None:
    interrupted("-o", "out.jsonl")
    with Path("out.jsonl.partial/rows.jsonl").open("ab") as file:
        file.write(torn)
    assert embed("-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS
    assert held.embedded == TEXTS


@posix
def test_an_unfinished_part_of_a_parquet_file_is_written_again(embed: Run, interrupted: Callable[..., None]) -> None:
    interrupted("-o", "out.parquet")
    Path("out.parquet.partial/part-000001.new").write_bytes(b"torn")
    assert embed("-o", "out.parquet") == 0
    assert texts_in("out.parquet") == TEXTS
    assert not Path("out.parquet.partial").exists()


@posix
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--field", "body"), "another --field (text, now body)"),
        (("--vector-field", "v"), "another --vector-field (embedding, now v)"),
        (("--length-policy", "truncate"), "another --length-policy (error, now truncate)"),
        (("--prefix", "query: "), "another --prefix (, now query: )"),
        (("--input-format", "jsonl"), "another --input-format (text, now jsonl)"),
        (("--output-format", "parquet"), "another --output-format (jsonl, now parquet)"),
        (("--model", OTHER), f"another model ({MODEL}, now {OTHER})"),
    ],
)
def test_a_run_with_other_settings_does_not_continue(
    embed: Run, interrupted: Callable[..., None], flags: tuple[str, ...], message: str
) -> None:
    interrupted("-o", "out.jsonl")
    code = embed("-o", "out.jsonl", *flags)
    assert isinstance(code, str)
    assert f"cannot resume 'out.jsonl': it was begun with {message}" in code
    assert "--overwrite" in code
    assert embed("-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


@posix
def test_a_run_with_another_input_does_not_continue_and_overwrite_begins_anew(
    embed: Run, held: Held, interrupted: Callable[..., None], run: Run
) -> None:
    interrupted("-o", "out.jsonl")
    Path("in.txt").write_text("other\n", encoding="utf-8")
    code = embed("-o", "out.jsonl")
    assert isinstance(code, str)
    assert "another input" in code
    code = run("embed", "-", "-o", "out.jsonl", "--host", held.server.address)
    assert isinstance(code, str)
    assert "another input" in code
    assert embed("-o", "out.jsonl", "--overwrite") == 0
    assert texts_in("out.jsonl") == ["other"]


@posix
def test_an_interrupted_overwrite_keeps_the_old_file_and_continues(
    embed: Run, interrupted: Callable[..., None]
) -> None:
    Path("out.jsonl").write_text("old", encoding="utf-8")
    interrupted("-o", "out.jsonl", "--overwrite")
    assert Path("out.jsonl").read_text(encoding="utf-8") == "old"
    assert embed("-o", "out.jsonl") == 0
    assert texts_in("out.jsonl") == TEXTS


@posix
def test_a_run_continues_with_its_model_also_if_another_one_is_loaded_by_now(
    embed: Run, held: Held, interrupted: Callable[..., None]
) -> None:
    interrupted("-o", "out.jsonl")
    held.server.unload(MODEL)
    held.server.load(OTHER)
    assert embed("-o", "out.jsonl") == 0
    assert {row["model"] for row in read_lines("out.jsonl")} == {MODEL}


@posix
def test_two_processes_do_not_write_the_same_file(embed: Run, held: Held) -> None:
    with process_at_the_gate(held, "-o", "out.jsonl") as process:
        for flags in ((), ("--overwrite",)):
            code = embed("-o", "out.jsonl", *flags)
            assert isinstance(code, str)
            assert "another process is writing 'out.jsonl'" in code
        held.gate.open()
        _, err = process.communicate(timeout=TIMEOUT)
    assert err == "Wrote 60 rows to out.jsonl.\n"
    assert held.embedded == TEXTS


@posix
def test_a_run_that_ended_between_its_last_two_steps_is_complete(
    embed: Run, held: Held, interrupted: Callable[..., None]
) -> None:
    interrupted("-o", "out.jsonl")
    Path("out.jsonl.partial/rows.jsonl").rename("out.jsonl")
    code = embed("-o", "out.jsonl")
    assert isinstance(code, str)
    assert "'out.jsonl' exists already" in code


def test_an_error_keeps_the_rows_before_it(embed: Run, held: Held) -> None:
    held.gate.open()
    lines = [json.dumps({"text": text}) for text in TEXTS]
    Path("in.jsonl").write_text("\n".join([*lines[:25], "torn"]), encoding="utf-8")
    Path("in.txt").unlink()
    Path("in.jsonl").rename("in.txt")
    code = embed("-o", "out.jsonl", "--input-format", "jsonl")
    assert isinstance(code, str)
    assert "line 26 is not JSON" in code
    assert len(read_lines("out.jsonl.partial/rows.jsonl")) == 20


@outputs
def test_a_full_disk_is_one_error_after_which_the_same_command_continues(
    embed: Run, held: Held, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    held.gate.open()
    kind = FILES["parquet" if output.endswith("parquet") else "jsonl"]
    write = kind.write

    def fail_after_30_rows(self: Any, *arguments: Any) -> None:
        if self.rows == 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", fail_after_30_rows)
        assert embed("-o", output) == f"Error: cannot write '{output}': No space left on device"
    assert embed("-o", output) == 0
    assert texts_in(output) == TEXTS


def test_a_folder_of_others_is_not_touched(embed: Run, held: Held) -> None:
    held.gate.open()
    folder = Path("out.jsonl.partial")
    folder.mkdir()
    (folder / "mine").touch()
    assert embed("-o", "out.jsonl") == 0
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_settings_that_cannot_be_read_are_an_error(embed: Run, held: Held) -> None:
    held.gate.open()
    folder = Path("out.jsonl.partial")
    folder.mkdir()
    (folder / "state.json").write_text("{", encoding="utf-8")
    code = embed("-o", "out.jsonl")
    assert isinstance(code, str)
    assert "state.json cannot be read" in code
    assert embed("-o", "out.jsonl", "--overwrite") == 0
