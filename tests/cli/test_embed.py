"""`embed`: what it writes, from which formats, and which errors name which line."""

import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations.cli._embed import output, rows
from lmstudio_integrations.cli._embed.rows import STANDARD, Columns, Rows, arrow
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.terminal import TIMEOUT, needs_pty, on_terminal, started

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
MODEL = "an-embedder"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with an embedding model of three dimensions and a short context window, and another model."""
    models = [
        ModelEntry(key=MODEL, kind="embedding", embedding_length=3, max_context_length=64, size_bytes=10),
        ModelEntry(key="other", kind="embedding", embedding_length=2, size_bytes=20),
        ModelEntry(key="chat"),
    ]
    with Emulator(models) as running:
        yield running


@pytest.fixture
def embed(run: Run, server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `embed` on the server, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run("embed", *arguments, "--host", server.address)


def read_rows(path: str) -> list[dict[str, Any]]:
    """Return the rows of a file of either format."""
    if path.endswith("parquet"):
        rows: list[dict[str, Any]] = read_parquet(path).to_pylist()
        return rows
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def vectors_of(server: Emulator, texts: list[str], model: str = MODEL) -> list[list[float]]:
    with Client(server.address) as client:
        return client.embedding.model(model, load_policy="explicit").embed(texts)


def write_parquet(path: str, columns: dict[str, Any]) -> None:
    arrow().parquet.write_table(arrow().table(columns), path)


def read_parquet(path: str) -> Any:
    return arrow().parquet.read_table(path)


def test_lines_of_text_become_json_lines(embed: Run, server: Emulator, capsys: Capture) -> None:
    Path("in.txt").write_text("eins zwei\ndrei ünf\r\nvier", encoding="utf-8")
    assert embed("in.txt", "-o", "out.jsonl") == 0
    texts = ["eins zwei", "drei ünf", "vier"]
    expected = zip(texts, vectors_of(server, texts), strict=True)
    assert read_rows("out.jsonl") == [{"text": t, "embedding": v, "model": MODEL} for t, v in expected]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "Wrote 3 rows to out.jsonl.\n")
    assert sorted(path.name for path in Path().iterdir()) == ["in.txt", "out.jsonl"]


def test_json_lines_keep_their_fields_as_they_are_written(embed: Run) -> None:
    rows = ['{"id": 1.0, "text":"eins", "big": 12345678901234567890123}', '  {"text": "\\ud83d", "ü": null}  ', ""]
    Path("in.jsonl").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    assert embed("in.jsonl", "-o", "out.ndjson") == 0
    first, second = Path("out.ndjson").read_text(encoding="utf-8").splitlines()
    assert first.startswith('{"id": 1.0, "text":"eins", "big": 12345678901234567890123, "embedding": [')
    assert second.startswith('{"text": "\\ud83d", "ü": null, "embedding": [')
    assert second.endswith(f'], "model": "{MODEL}"}}')


def test_the_fields_can_have_other_names(embed: Run) -> None:
    Path("in.jsonl").write_text('{"body": "eins", "model": "T", "embedding": 1}\n', encoding="utf-8")
    assert embed("in.jsonl", "-o", "out.jsonl", "--field", "body") != 0
    flags = "--field", "body", "--vector-field", "vector", "--model-field", "by"
    assert embed("in.jsonl", "-o", "out.jsonl", *flags) == 0
    assert list(read_rows("out.jsonl")[0]) == ["body", "model", "embedding", "vector", "by"]


def test_parquet_keeps_the_types_of_its_columns(embed: Run, server: Emulator) -> None:
    pa = arrow()
    columns = {
        "id": pa.array([1, 2, 3], pa.int16()),
        "text": pa.array(["a", "b", "c"]).dictionary_encode(),
        "day": pa.array([0, 1, None], pa.date32()),
    }
    write_parquet("in.parquet", columns)
    assert embed("in.parquet", "-o", "out.parquet", "--batch-size", "2") == 0
    table = read_parquet("out.parquet")
    assert table.column_names == ["id", "text", "day", "embedding", "model"]
    assert table.schema.field("id").type == pa.int16()
    assert table.schema.field("day").type == pa.date32()
    assert table.column("text").to_pylist() == ["a", "b", "c"]
    for found, expected in zip(table.column("embedding").to_pylist(), vectors_of(server, ["a", "b", "c"]), strict=True):
        assert found == pytest.approx(expected)
    assert set(table.column("model").to_pylist()) == {MODEL}


def test_one_format_can_become_another(embed: Run) -> None:
    write_parquet("in.pq", {"text": ["a", "b"], "raw": [b"\xff", None]})
    assert embed("in.pq", "-o", "out.jsonl") == 0
    assert [(row["text"], row["raw"]) for row in read_rows("out.jsonl")] == [("a", "_w=="), ("b", None)]


@pytest.mark.parametrize("group", [1, 2048])
def test_rows_of_json_with_different_fields_become_columns_with_nulls(
    embed: Run, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(output, "PARQUET_ROWS", group)
    lines = ['{"text": "a", "n": null, "o": {"x": 1}}', '{"text": "b", "n": 2.5}', '{"text": "c", "n": 3, "p": [1]}']
    Path("in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert embed("in.jsonl", "-o", "out.parquet") == 0
    table = read_parquet("out.parquet")
    assert table.column_names == ["text", "n", "o", "p", "embedding", "model"]
    assert table.select(["text", "n", "o", "p"]).to_pylist() == [
        {"text": "a", "n": None, "o": {"x": 1}, "p": None},
        {"text": "b", "n": 2.5, "o": None, "p": None},
        {"text": "c", "n": 3, "o": None, "p": [1]},
    ]


def test_a_format_can_be_named_where_the_suffix_does_not(embed: Run) -> None:
    Path("in.data").write_text('{"text": "a"}\n', encoding="utf-8")
    assert embed("in.data", "-o", "out.data", "--input-format", "jsonl", "--output-format", "parquet") == 0
    assert read_parquet("out.data").num_rows == 1


@pytest.mark.parametrize("path", ["out.jsonl", "out.parquet"])
def test_an_empty_input_makes_an_empty_output(embed: Run, path: str) -> None:
    Path("in.txt").touch()
    assert embed("in.txt", "-o", path) == 0
    assert read_rows(path) == []
    assert [each.name for each in Path().glob("out*")] == [path]


@pytest.mark.parametrize("path", ["out.jsonl", "out.parquet"])
def test_a_row_without_text_keeps_its_place(embed: Run, server: Emulator, capsys: Capture, path: str) -> None:
    Path("in.txt").write_text("eins\n\n \nzwei\n", encoding="utf-8")
    assert embed("in.txt", "-o", path) == 0
    rows = read_rows(path)
    assert [row["text"] for row in rows] == ["eins", "", " ", "zwei"]
    assert [row["embedding"] is None for row in rows] == [False, True, True, False]
    assert [record.text for record in server.embedded_texts] == ["eins", "zwei"]
    assert "2 rows without text; the vector is null." in capsys.readouterr().err


@pytest.mark.slow
def test_stdin_and_stdout_are_pipes(server: Emulator) -> None:
    with started("embed", "-", "--host", server.address) as process:
        out, err = process.communicate("eins\nzwei\n", TIMEOUT)
    assert (process.returncode, err) == (0, "")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["eins", "zwei"]


def test_only_the_rows_that_are_embedded_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    class Endless(io.RawIOBase):
        def __iter__(self) -> Any:
            for number in itertools.count():
                read.append(b"%d\n" % number)
                yield read[-1]

    class Stdin:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Stdin())
    rows = iter(Rows(STANDARD, "text", Columns("text")))
    assert [next(rows)[:2] for _ in range(2)] == [("line 1", "0"), ("line 2", "1")]
    assert len(read) == 2


def test_the_loaded_model_is_used_else_the_smallest(embed: Run, server: Emulator) -> None:
    Path("in.txt").write_text("eins", encoding="utf-8")
    assert embed("in.txt", "-o", "smallest.jsonl") == 0
    server.unload(MODEL)
    server.load("other")
    assert embed("in.txt", "-o", "loaded.jsonl") == 0
    assert embed("in.txt", "-o", "named.jsonl", "--model", "embedder", "--ttl", "7") == 0
    models = [read_rows(f"{name}.jsonl")[0]["model"] for name in ("smallest", "loaded", "named")]
    assert models == [MODEL, "other", MODEL]
    assert [(each.model_key, each.ttl_ms) for each in server.loaded()] == [("other", None), (MODEL, 7000)]


def test_a_server_without_embedding_models_is_an_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("eins", encoding="utf-8")
    with Emulator(["chat"]) as server:
        code = run("embed", str(path), "--host", server.address)
    assert isinstance(code, str)
    assert code.startswith("Error: no embedding model is loaded")
    assert "--model" in code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        (b'{"text": "a"}\n\n[1]\n', "line 3 is not a JSON object"),
        (b'{"text": "a"}\n{"texts": "a", "n": 1}\n', "line 2 has no field 'text'; choose one of texts, n with --field"),
        (b'{"text": 1}\n', "the field 'text' of line 1 must be a string; it is int"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2 is not UTF-8"),
        (b'{"text": "a", "embedding": 1}\n', "line 1 has a field 'embedding' already"),
        (b'{"text": "a", "model": 1}\n', "choose another name with --model-field"),
    ],
)
def test_an_error_in_the_input_names_its_line(embed: Run, content: bytes, message: str) -> None:
    Path("in.jsonl").write_bytes(content)
    code = embed("in.jsonl", "-o", "out.jsonl", "--batch-size", "1")
    assert isinstance(code, str)
    assert message in code
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, "has no field 'text'; choose one of body with --field"),
        ({"text": [1]}, "the field 'text' of row 1 must be a string; it is int"),
        ({"text": ["a"], "embedding": [1]}, "has a field 'embedding' already"),
    ],
)
def test_an_error_in_a_parquet_file_names_its_column(embed: Run, columns: dict[str, Any], message: str) -> None:
    write_parquet("in.parquet", columns)
    code = embed("in.parquet")
    assert isinstance(code, str)
    assert message in code


def test_a_text_that_is_too_long_is_an_error_with_its_line_or_is_truncated(embed: Run) -> None:
    Path("in.txt").write_text("eins\n" + "word " * 200, encoding="utf-8")
    code = embed("in.txt", "-o", "out.jsonl")
    assert isinstance(code, str)
    assert code.startswith("Error: line 2 has ")
    assert code.endswith("pass --length-policy average to embed it in parts, or 'truncate' to embed its beginning")
    assert embed("in.txt", "-o", "out.jsonl", "--length-policy", "truncate") == 0
    assert len(read_rows("out.jsonl")) == 2


def test_a_text_that_is_too_long_may_be_embedded_in_parts(embed: Run, server: Emulator, capsys: Capture) -> None:
    Path("in.txt").write_text("word " * 200, encoding="utf-8")
    assert embed("in.txt", "-o", "out.jsonl", "--length-policy", "average") == 0
    assert read_rows("out.jsonl")[0]["embedding"] == pytest.approx(vectors_of(server, ["word " * 50])[0])
    assert "Warning: some texts are longer than the 64 tokens" in " ".join(capsys.readouterr().err.split())


def test_every_text_and_every_part_of_a_long_one_gets_the_prefix(embed: Run, server: Emulator) -> None:
    Path("in.txt").write_text("eins\n" + "word " * 200, encoding="utf-8")
    assert embed("in.txt", "-o", "out.jsonl", "--length-policy", "average", "--prefix", "query: ") == 0
    assert len(server.embedded_texts) > 4
    assert all(record.text.startswith("query: ") for record in server.embedded_texts)
    assert read_rows("out.jsonl")[0]["text"] == "eins"


@pytest.mark.parametrize("number", [10**400, 65_537, 0])
def test_a_batch_that_cannot_be_held_is_an_error_of_the_flag(embed: Run, capsys: Capture, number: int) -> None:
    Path("in.txt").write_text("eins", encoding="utf-8")
    assert embed("in.txt", "--batch-size", str(number)) == 2
    assert "invalid value for --batch-size" in capsys.readouterr().err


def test_an_error_of_the_server_names_the_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("eins\nzwei\ndrei\nvier\n", encoding="utf-8")
    rule = {"when": {"last": "vier"}, "then": [{"error": "no such number"}]}
    with Emulator([ModelEntry(key=MODEL, kind="embedding", rules=(rule,))]) as server:
        code = run("embed", str(path), "--host", server.address, "--batch-size", "2")
        assert isinstance(code, str)
        assert code.startswith("Error: line 3 to line 4: ")
        assert "no such number" in code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.txt",), "cannot read 'nothing.txt': there is no such file"),
        (("folder",), "cannot read 'folder': there is no such file; to read a pipe, use - as input"),
        (("in.csv",), "the format of 'in.csv' is not known"),
        (("in.txt", "-o", "out.txt"), "cannot write the format of 'out.txt'; name it .jsonl or .parquet"),
        (("in.txt", "-o", "out.csv"), "cannot write the format of 'out.csv'; name it .jsonl or .parquet"),
        (("in.txt", "-o", "missing/out.jsonl"), "there is no folder 'missing'"),
        (("in.txt", "-o", "folder", "--output-format", "jsonl"), ": folder"),
        (("in.txt", "--output-format", "parquet"), "Parquet cannot be read from or written to a pipe; name a file"),
        (("in.txt", "--input-format", "parquet"), "'in.txt' is not a Parquet file"),
        (("in.txt", "--field", "model"), "must be three different names"),
        (("in.txt", "--model", "chat"), "'chat' is a language model; `lmsi ls --embedding` lists embedding models"),
        (("in.txt", "--model", "no-such-model"), "no downloaded model matches 'no-such-model'"),
    ],
)
def test_what_cannot_work_is_one_error(embed: Run, arguments: tuple[str, ...], message: str) -> None:
    Path("folder").mkdir()
    Path("in.txt").write_text("eins", encoding="utf-8")
    code = embed(*arguments)
    assert isinstance(code, str)
    assert message in code
    assert not list(Path().glob("*.partial"))


def test_without_pyarrow_parquet_is_an_error_that_names_what_to_install(
    embed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "find_spec", lambda _: None)
    Path("in.txt").write_text("eins", encoding="utf-8")
    assert embed("in.txt", "-o", "out.parquet") == f"Error: Parquet needs pyarrow; run: {package_command('pyarrow')}"
    assert embed("in.txt", "-o", "out.jsonl") == 0


def test_numbers_of_parquet_that_json_does_not_have_are_null(embed: Run) -> None:
    write_parquet("in.parquet", {"text": arrow().array(["a", "b"]), "n": arrow().array([float("nan"), float("inf")])})
    assert embed("in.parquet", "-o", "out.jsonl") == 0
    assert [row["n"] for row in read_rows("out.jsonl")] == [None, None]


@pytest.mark.parametrize("group", [1, 2048])
@pytest.mark.parametrize("values", [(1, "two"), ([1], 2), (2**80, 1), ("\ud83d", "")])
def test_what_cannot_be_a_column_of_parquet_is_written_as_json_lines_without_embedding_again(
    embed: Run, server: Emulator, monkeypatch: pytest.MonkeyPatch, values: tuple[Any, Any], group: int
) -> None:
    monkeypatch.setattr(output, "PARQUET_ROWS", group)
    lines = [json.dumps({"text": "a", "n": value}) for value in values]
    Path("in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code = embed("in.jsonl", "-o", "out.parquet")
    assert isinstance(code, str)
    assert "Parquet needs columns of one type" in code
    assert not Path("out.parquet").exists()
    assert embed("in.jsonl", "-o", "out.parquet", "--output-format", "jsonl") == 0
    rows = [json.loads(line) for line in Path("out.parquet").read_text(encoding="utf-8").splitlines()]
    assert tuple(row["n"] for row in rows) == values
    assert len(server.embedded_texts) == 2


def test_a_file_that_exists_is_replaced_only_with_overwrite(embed: Run) -> None:
    Path("in.txt").write_text("eins", encoding="utf-8")
    Path("out.jsonl").write_text("mine", encoding="utf-8")
    code = embed("in.txt", "-o", "out.jsonl")
    assert isinstance(code, str)
    assert "'out.jsonl' exists already" in code
    assert Path("out.jsonl").read_text(encoding="utf-8") == "mine"
    assert embed("in.txt", "-o", "out.jsonl", "--overwrite") == 0
    assert len(read_rows("out.jsonl")) == 1


@pytest.mark.slow
@needs_pty
def test_on_a_terminal_the_progress_is_a_bar(server: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("eins\n" * 100, encoding="utf-8")
    with on_terminal("embed", "in.txt", "-o", "out.jsonl", "--host", server.address, cwd=tmp_path) as terminal:
        assert terminal.wait() == 0
    assert "Embedding" in terminal.text
    assert "/100" in terminal.text
    with on_terminal("embed", "in.txt", "--host", server.address, cwd=tmp_path) as terminal:
        assert terminal.wait() == 0
    assert "Embedding" not in terminal.text
    assert terminal.text.count('"model"') == 100
