"""The classes for Ray Data on a scripted server, called as Ray calls them: batch by batch, on one event loop."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from lmstudio_integrations import Client
from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import (
    LMStudioConfigMismatchError,
    LMStudioConfigWarning,
    LMStudioContextOverflowError,
    LMStudioModelNotFoundError,
    LMStudioServerError,
    LMStudioStructuredOutputError,
    LMStudioUnreachableError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.ray import Embedder, Generator, Reranker
from tests.support.gate import AT_THE_GATE, Gate

RULES: tuple[Any, ...] = (
    {"when": {"last": "^fail"}, "then": [{"error": "It went wrong"}]},
    {"when": {"last": "^wait"}, "then": [AT_THE_GATE, {"text": "{last}"}]},
    {"when": {"last": "^prose"}, "then": [{"text": "No JSON"}]},
    {"when": {"last": "^seven"}, "then": [{"text": '{"title": 7}'}]},
    {"when": {"tools": ["weather"]}, "then": [{"tool": "weather", "arguments": {"city": "Rome"}}]},
    {"when": {"image": True}, "then": [{"text": "an image"}]},
    {"when": {"structured": False}, "then": [{"text": "{last}"}]},
)
RERANKER_RULES: tuple[Any, ...] = (
    {"when": {"last": "^fail"}, "then": [{"error": "It went wrong"}]},
    {"when": {"last": "^wait"}, "then": [AT_THE_GATE, {"relevance": 0.5}]},
    {"when": {"last": "^prose"}, "then": [{"text": "Well"}]},
    {"when": {"last": "ferry"}, "then": [{"relevance": 0.9}]},
)


class Title(BaseModel):
    title: str
    size: int = 0


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    chat = ModelEntry(key="chat", slots=2, vision=True, rules=RULES)
    vectors = ModelEntry(key="vectors", kind="embedding", embedding_length=4, context_length=32)
    reranker = ModelEntry(key="reranker", slots=2, rules=RERANKER_RULES)
    with Emulator([chat, vectors, reranker], engines=gate.engines()) as emulator:
        yield emulator


@pytest.fixture
def arguments(server: Emulator) -> dict[str, Any]:
    return {"hosts": [server.address]}


def table(**columns: Any) -> Any:
    return pa.table(columns)


async def run(actor: Embedder | Generator | Reranker, batch: Any) -> list[dict[str, Any]]:
    """Return the rows of the one batch that an actor yields."""
    async with asyncio.timeout(600):
        (result,) = [each async for each in actor(batch)]
    assert result.num_rows == batch.num_rows
    rows: list[dict[str, Any]] = result.to_pylist()
    return rows


# Texts --------------------------------------------------------------------------------------------------------------


async def test_a_prompt_is_made_of_columns_and_the_response_is_a_column(arguments: dict[str, Any]) -> None:
    rows = await run(Generator("chat", prompt="{n}: {body}", **arguments), table(n=[1, 2], body=["a", "b"]))
    assert [row["generated_text"] for row in rows] == ["1: a", "2: b"]
    assert rows[0]["n"] == 1
    assert rows[0]["generated_text_host"] == arguments["hosts"][0]
    assert rows[0]["generated_text_prompt_tokens"] > 0
    assert rows[0]["generated_text_completion_tokens"] > 0


async def test_a_function_makes_the_prompt_of_the_columns_that_it_reads(
    server: Emulator, arguments: dict[str, Any]
) -> None:
    def prompt(row: Any) -> Any:
        text = " ".join(map(str, row.values()))
        return [{"role": "system", "content": "Be brief"}, {"role": "user", "content": text}]

    for columns, text in ((None, "1 a"), (["body"], "a")):
        (row,) = await run(Generator("chat", prompt=prompt, columns=columns, **arguments), table(n=[1], body=["a"]))
        assert row["generated_text"] == text
    assert len(server.predictions[-1].messages) == 2


async def test_a_response_in_a_format_is_json_text_and_settings_are_sent(
    server: Emulator, arguments: dict[str, Any]
) -> None:
    for schema in (Title, Title.model_json_schema()):
        actor = Generator("chat", prompt="{body}", schema=schema, config={"temperature": 0.5}, **arguments)
        (row,) = await run(actor, table(body=["a"]))
        Title.model_validate_json(row["generated_text"])
        assert server.predictions[-1].config["temperature"] == 0.5


@pytest.mark.parametrize(
    ("schema", "body", "message"),
    [(Title, "prose", "No JSON"), (Title.model_json_schema(), "seven", "string")],
    ids=["prose", "type"],
)
async def test_a_response_that_does_not_match_the_schema_is_an_error_of_its_row(
    arguments: dict[str, Any], schema: Any, body: str, message: str
) -> None:
    actor = Generator("chat", prompt="{body}", schema=schema, on_error="column", **arguments)
    failed, fine = await run(actor, table(body=[body, "a"]))
    assert failed["generated_text_error"].startswith(LMStudioStructuredOutputError.__name__)
    assert message in failed["generated_text_error"]
    assert failed["generated_text"] is None
    assert fine["generated_text_error"] is None


async def test_vectors_of_two_lengths_end_the_job() -> None:
    models = [ModelEntry(key="vectors", kind="embedding", embedding_length=each, preload=True) for each in (4, 8)]
    with Emulator(models[:1]) as first, Emulator(models[1:]) as second:
        actor = Embedder("vectors", hosts=[first.address, second.address], on_error="column")
        texts = [f"text {number}" for number in range(100)]
        with pytest.raises(LMStudioConfigMismatchError, match="dimensions"):
            await run(actor, table(text=texts))


# Errors -------------------------------------------------------------------------------------------------------------


async def test_the_first_error_is_raised_and_the_other_rows_of_the_batch_are_cancelled(
    server: Emulator, arguments: dict[str, Any]
) -> None:
    with pytest.raises(LMStudioServerError, match="It went wrong"):
        await run(Generator("chat", prompt="{body}", **arguments), table(body=["wait", "fail"] * 4))
    server.wait_for(lambda: all(each.state == "ended" for each in server.predictions))


async def test_an_error_can_be_a_column_and_all_types_stay(arguments: dict[str, Any]) -> None:
    actor = Generator("chat", prompt="{body}", on_error="column", **arguments)
    batch = table(body=pa.array(["fail", None], pa.string()))
    (result,) = [each async for each in actor(batch)]
    (none,) = [each async for each in actor(batch.slice(0, 0))]
    assert result.schema == none.schema
    assert result.schema.field("generated_text_prompt_tokens").type == pa.int64()
    first, second = result["generated_text_error"].to_pylist()
    assert "It went wrong" in first
    assert second == "LMStudioValueError: column 'body' is null"


@pytest.mark.parametrize("actor", [Generator, Embedder, Reranker])
async def test_an_error_of_every_row_is_raised_even_if_errors_are_a_column(
    arguments: dict[str, Any], actor: Any
) -> None:
    column = {"prompt": "{text}"} if actor is Generator else {}
    batch = table(text=["a"] * 20, query=["q"] * 20, texts=[["a"]] * 20)
    with pytest.raises(LMStudioModelNotFoundError):
        await run(actor("no-such-model", on_error="column", **column, **arguments), batch)


async def test_a_host_that_does_not_respond_is_an_error_of_the_row() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    arguments: dict[str, Any] = {"hosts": [f"127.0.0.1:{port}"], "max_retries": 0, "on_error": "column"}
    batch = table(text=["a"], query=["q"], texts=[["a"]])
    for actor, column in (
        (Generator("chat", prompt="{text}", **arguments), "generated_text_error"),
        (Embedder("vectors", **arguments), "embeddings_error"),
        (Reranker("reranker", **arguments), "scores_error"),
    ):
        (row,) = await run(actor, batch)
        assert row[column].startswith(LMStudioUnreachableError.__name__)


async def test_a_batch_of_another_format_or_with_other_columns_is_rejected(arguments: dict[str, Any]) -> None:
    actor = Generator("chat", prompt="{body}", **arguments)
    for batch, message in (
        ({"body": ["a"]}, "pass batch_format='pyarrow'"),
        (table(bodies=["a"]), "no column 'body'; it has 'bodies'"),
        (table(body=["a"], generated_text_host=["a"]), "has a column 'generated_text_host' already"),
    ):
        with pytest.raises(LMStudioValueError, match=message):
            await run(actor, batch)


# Concurrency --------------------------------------------------------------------------------------------------------


async def test_batches_share_the_slots_of_the_host(server: Emulator, arguments: dict[str, Any], gate: Gate) -> None:
    server.load("chat")
    actor = Generator("chat", prompt="{body}", **arguments)
    batches = [asyncio.create_task(run(actor, table(body=["wait"] * 3))) for _ in range(3)]
    running = ["running"] * 2  # each is queued for a moment
    await asyncio.to_thread(server.wait_for, lambda: [each.state for each in server.predictions] == running)
    assert [each.state for each in server.predictions] == running
    gate.open()
    assert sum(len(rows) for rows in await asyncio.gather(*batches)) == 9


async def test_all_rows_are_sent_if_only_the_engine_knows_how_many_it_runs_at_once(gate: Gate) -> None:
    entry = ModelEntry(key="chat", slots=2, rules=RULES, format="torch_safetensors")
    with Emulator([entry], engines=gate.engines()) as server:
        with Client(server.address) as client:
            client.llm.load_new_instance("chat", config={"engine_config_file_contents": "max-num-seqs: 2"})
        actor = Generator("chat", prompt="{body}", hosts=[server.address])
        rows = asyncio.create_task(run(actor, table(body=["wait"] * 9)))
        await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == 9)
        gate.open()
        assert len(await rows) == 9


async def test_rows_are_generated_one_by_one_if_the_number_of_slots_is_unknown(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> Flow[None]:
        yield from ()
        raise LMStudioUnreachableError("no response")

    unknown = SimpleNamespace(probe=fail)
    monkeypatch.setattr("lmstudio_integrations.ray.hosts_of_model", lambda _model: unknown)
    actor = Generator("chat", prompt="{body}", **arguments)
    assert len(await run(actor, table(body=["a", "b"]))) == 2


# Vectors ------------------------------------------------------------------------------------------------------------


async def test_texts_become_vectors_in_their_order(arguments: dict[str, Any]) -> None:
    texts = [f"text {number}" for number in range(50)]
    actor = Embedder("vectors", text="body", **arguments)
    rows = await run(actor, table(body=texts))
    alone = await run(actor, table(body=[texts[-1]]))
    assert rows[-1]["embeddings"] == alone[0]["embeddings"]
    assert {len(row["embeddings"]) for row in rows} == {4}


async def test_only_the_text_that_fails_has_an_error(arguments: dict[str, Any]) -> None:
    actor = Embedder("vectors", on_error="column", **arguments)
    rows = await run(actor, table(text=["a", None, "b " * 100, "c"]))
    assert [row["embeddings"] is None for row in rows] == [False, True, True, False]
    assert rows[1]["embeddings_error"] == "LMStudioValueError: column 'text' must be a string; got NoneType"
    assert rows[2]["embeddings_error"].startswith(LMStudioContextOverflowError.__name__)


async def test_a_text_that_is_too_long_is_an_error_truncated_or_embedded_in_parts(
    server: Emulator, arguments: dict[str, Any]
) -> None:
    batch = table(text=["b " * 100])
    with pytest.raises(LMStudioContextOverflowError):
        await run(Embedder("vectors", **arguments), batch)
    assert await run(Embedder("vectors", length_policy="truncate", **arguments), batch)
    before = len(server.embedded_texts)
    averaging = Embedder("vectors", length_policy="average", prefix="query: ", **arguments)
    with pytest.warns(LMStudioConfigWarning, match="lower the length of the texts below 32"):
        await run(averaging, batch)
    parts = [record.text for record in list(server.embedded_texts)[before:]]
    assert len(parts) == 4
    assert all(part.startswith("query: ") for part in parts)


async def test_vectors_of_a_known_length_are_a_fixed_size_list(arguments: dict[str, Any]) -> None:
    (result,) = [each async for each in Embedder("vectors", dimensions=4, **arguments)(table(text=["a"]))]
    assert result.schema.field("embeddings").type == pa.list_(pa.float32(), 4)
    with pytest.raises(LMStudioValueError, match="set dimensions=4"):
        await run(Embedder("vectors", dimensions=5, **arguments), table(text=["a"]))


# Scores -------------------------------------------------------------------------------------------------------------


async def test_texts_get_their_scores_in_their_order(arguments: dict[str, Any]) -> None:
    texts = [["It rains", "the ferry", "prose"], [], ["a ferry"]]
    actor = Reranker("reranker", query="q", texts="t", output_column="out", **arguments)
    rows = await run(actor, table(q=["When does the ferry leave?"] * 3, t=texts))
    assert [row["out"] for row in rows] == [
        [pytest.approx(0.01), pytest.approx(0.9), None],
        [],
        [pytest.approx(0.9)],
    ]


async def test_the_instruction_and_the_template_are_in_the_prompt(server: Emulator, arguments: dict[str, Any]) -> None:
    template = "{instruction} | {query} | {text} | "
    actor = Reranker("reranker", instruction="Is it about ships?", template=template, **arguments)
    await run(actor, table(query=["q"], texts=[["a", "b"]]))
    prompts = {f"Is it about ships? | q | {text} | " for text in "ab"}
    assert {each.prompt for each in server.predictions} == prompts


async def test_a_row_with_a_text_that_fails_has_an_error_and_no_scores(arguments: dict[str, Any]) -> None:
    actor = Reranker("reranker", on_error="column", **arguments)
    texts = [["a ferry", "fail"], ["a", None], None, ["a"], ["a ferry"]]
    batch = table(query=["q", "q", "q", None, "q"], texts=texts)
    (result,) = [each async for each in actor(batch)]
    assert result.schema.field("scores").type == pa.list_(pa.float64())
    assert result["scores"].to_pylist() == [None] * 4 + [[pytest.approx(0.9)]]
    failed, *invalid, fine = result["scores_error"].to_pylist()
    assert "It went wrong" in failed
    assert [each.partition("; got")[0] for each in invalid] == [
        "LMStudioValueError: text 1 must be a string",
        "LMStudioValueError: column 'texts' must be a list of strings",
        "LMStudioValueError: column 'query' must be a string",
    ]
    assert fine is None


async def test_a_server_without_log_probabilities_ends_the_job(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmstudio_integrations.emulator.engines.scripted.writer.candidate_count", lambda _: None)
    with pytest.raises(LMStudioUnsupportedError, match="log-probabilities"):
        await run(Reranker("reranker", on_error="column", **arguments), table(query=["q"], texts=[["a"]]))


@pytest.mark.parametrize("texts", [[["a", *["wait"] * 3]], [["wait"] * 2] * 4], ids=["one row", "many rows"])
async def test_the_texts_of_a_batch_share_the_slots_of_the_host(
    server: Emulator, arguments: dict[str, Any], gate: Gate, texts: list[list[str]]
) -> None:
    server.load("reranker")
    actor = Reranker("reranker", **arguments)
    batch = asyncio.create_task(run(actor, table(query=["q"] * len(texts), texts=texts)))
    states = [*["ended"] * (len(texts) == 1), "running", "running"]  # the first text of a query is scored alone
    await asyncio.to_thread(server.wait_for, lambda: [each.state for each in server.predictions] == states)
    gate.open()
    assert [len(row["scores"]) for row in await batch] == [len(each) for each in texts]


# Arguments ----------------------------------------------------------------------------------------------------------


INVALID: list[tuple[Any, dict[str, Any], str]] = [
    (Generator, {"model": "chat", "prompt": "a"}, "prompt must name columns in braces"),
    (Generator, {"model": "chat", "prompt": "{a"}, "is no template"),
    (Generator, {"model": "", "prompt": "{a}"}, "model is empty"),
    (Generator, {"model": "chat", "prompt": "{a}", "schema": int}, "has no model_json_schema"),
    (Generator, {"model": "chat", "prompt": "{a}", "config": {"temprature": 1}}, "did you mean 'temperature'"),
    (Generator, {"model": "chat", "prompt": "{a}", "on_error": "ignore"}, "on_error must be 'raise' or 'column'"),
    (Generator, {"model": "chat", "prompt": "{a}", "output_column": ""}, "output_column is empty"),
    (Embedder, {"model": "vectors", "hosts": []}, "must name at least one server"),
    (Embedder, {"model": "vectors", "max_retry": 1}, "unknown argument 'max_retry'; there are hosts, load, "),
    (Embedder, {"model": "vectors", "api_token": "x"}, "the token comes from the environment of the actors"),
    (Embedder, {"model": "vectors", "length_policy": "cut"}, "length_policy must be one of 'error', 'truncate', "),
    (Embedder, {"model": "vectors", "dimensions": 0}, "dimensions must be at least 1"),
    (Reranker, {"model": "reranker", "template": "{query}"}, "the prompt needs"),
]


@pytest.mark.parametrize(("actor", "settings", "message"), INVALID)
def test_invalid_arguments_are_rejected_before_anything_is_sent(
    actor: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(LMStudioValueError, match=message):
        actor(**settings)


@pytest.mark.parametrize("package", ["pyarrow", "anyio"])
def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "lmstudio_integrations.ray")
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("lmstudio_integrations.ray")
    assert str(caught.value) == f"lmstudio_integrations.ray needs {package}; run: {install_command('ray')}"


@pytest.mark.slow
def test_importing_the_module_does_not_import_ray() -> None:
    script = "import sys, lmstudio_integrations.ray; print('ray' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert run.stdout == "False\n"
