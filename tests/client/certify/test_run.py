"""One call of `certify`: which instance it uses, what it costs, what it keeps, and how it compares."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import AsyncClient, Card, Client
from lmstudio_integrations.client.api.official import own_default_client
from lmstudio_integrations.client.certify.run import all_rows, tokens_of
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.certified.rules import tools

KEY = "asked"

pytestmark = pytest.mark.leaf("calls_in_text")


@pytest.fixture
def server() -> Generator[Emulator]:
    stalling = {"when": {"last": "^wait"}, "then": [{"text": "Well"}, {"fault": "stall"}]}
    with Emulator([ModelEntry(key=KEY, rules=(*tools(), stalling))]) as server:
        yield server


@pytest.fixture
def client(server: Emulator) -> Generator[Client]:
    with Client(server.address) as client:
        yield client


def quick(client: Client, **parameters: Any) -> Card:
    return client.certify(KEY, **{"rows": ["tools"], "quick": True, **parameters})


def loaded(client: Client) -> list[str]:
    return [model.identifier for model in client.llm.list_loaded()]


def test_an_instance_of_its_own_is_unloaded_again(client: Client) -> None:
    card = quick(client)
    assert card.complete
    assert card.model.key == KEY
    assert card.model.identifier.startswith("lmsi-certify-")
    assert loaded(client) == []


def test_an_idle_instance_is_used_and_stays(client: Client) -> None:
    client.llm.load_new_instance(KEY, "mine", config={"context_length": 2048, "max_parallel_predictions": 3})
    card = quick(client)
    assert (card.model.identifier, card.model.context_length, card.model.slots) == ("mine", 2048, 3)
    assert card.model.load_config["llm.load.contextLength"] == 2048
    assert loaded(client) == ["mine"]


def test_a_card_does_not_say_how_many_run_at_once_if_only_the_engine_knows_it(tmp_path: Path) -> None:
    entry = ModelEntry(key=KEY, rules=tools(), format="torch_safetensors")
    with Emulator([entry]) as server, Client(server.address) as client:
        contents = "max-num-seqs: 256\napi-key: secret\n"
        config = lms.LlmLoadModelConfig(engine_config_file_contents=contents, engine_cwd="/models")
        client.llm.load_new_instance(KEY, "mine", config=config)
        card = quick(client)
    (path := tmp_path / "card.json").write_text(card.to_json())
    assert card.model.slots is None
    assert Card.read(path) == card
    assert "at once" not in str(card.model)
    assert "secret" not in path.read_text()


@pytest.mark.parametrize(
    ("file_format", "engine"),
    [("safetensors", "mlx-llm 1.9.0"), ("yuzu", "splash 0.0.5"), ("gguf", "llama.cpp 2.50.0"), ("onnx", None)],
)
def test_a_card_names_the_engine_of_the_format_of_the_model(
    file_format: str, engine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(_operation: object) -> Flow[lms.HardwareSurvey]:
        yield from ()
        names = {"mlx-llm 1.9.0": "MLX", "splash 0.0.5": "yuzu", "llama.cpp 2.50.0": "GGUF"}
        engines = [
            {"name": name.split()[0], "version": name.split()[1], "supportedModelFormatNames": [formats]}
            for name, formats in names.items()
        ]
        return lms.HardwareSurvey.from_dict({"status": "ok", "engines": engines})

    monkeypatch.setattr("lmstudio_integrations.client.certify.run.survey_hardware", survey)
    with Emulator([ModelEntry(key=KEY, rules=tools(), format=file_format)]) as server, Client(server.address) as client:
        assert quick(client).model.runtime == engine


@pytest.mark.leaf
def test_a_card_says_which_efforts_the_model_allows(client: Client) -> None:
    assert "efforts" not in str(quick(client).model)
    entry = ModelEntry(key=KEY, rules=tools(), reasoning_options=("low", "medium", "high"), reasoning_default="low")
    with Emulator([entry]) as server, Client(server.address) as other:
        card = quick(other)
    assert (card.model.efforts, card.model.default_effort) == (("low", "medium", "high"), "low")
    assert ", 4 at once, efforts low, medium, high (default low)) on" in str(card.model)


def test_a_busy_instance_is_an_error_that_names_it(client: Client) -> None:
    model = client.llm.load_new_instance(KEY, "mine")
    with model.respond_stream("wait for it") as stream:
        fragments = iter(stream)
        next(fragments)
        with pytest.raises(lms.LMStudioValueError, match="'mine' is in use"):
            quick(client)


def test_a_model_that_does_not_fit_is_not_loaded() -> None:
    models = [{"key": KEY, "memory_gib": 6}, {"key": "other", "memory_gib": 6, "preload": True}]
    with Emulator(catalog={"model": models, "memory_gib": 8}) as server, Client(server.address) as client:
        with pytest.raises(lms.LMStudioInsufficientResourcesError, match="lms load asked"):
            quick(client)
        assert loaded(client) == ["other"]


def test_an_unknown_model_is_an_error(client: Client) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError):
        client.certify("askd")


async def test_the_async_client_and_the_default_client_make_the_same_card(
    server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[tuple[str, float]] = []
    cards: list[Card] = []

    async def on_row(card: Card) -> None:
        cards.append(card)

    monkeypatch.setenv("LMSTUDIO_HOST", server.address)
    with own_default_client():
        assert lms.certify(KEY, rows=["tools"], quick=True).row("tools").share == 1.0
    async with AsyncClient(server.address) as client:
        card = await client.certify(
            KEY, rows=["tools"], quick=True, on_row=on_row, on_progress=lambda *each: progress.append(each)
        )
    assert card.row("tools").share == 1.0
    assert [each.rows for each in cards] == [card.rows]
    assert progress[0] == ("tools", 0.0)
    assert [part for _, part in progress] == sorted(part for _, part in progress)


def test_a_card_is_read_as_it_was_written_and_one_of_another_format_or_model_is_an_error(
    client: Client, tmp_path: Path
) -> None:
    card, path = quick(client), tmp_path / "card.json"
    path.write_text(card.to_json(), encoding="utf-8")
    assert Card.read(path) == card
    path.write_text(card.model_copy(update={"format_version": 0}).to_json(), encoding="utf-8")
    with pytest.raises(lms.LMStudioValueError, match="format 0"):
        quick(client, against=path)
    other = card.model_copy(update={"model": card.model.model_copy(update={"key": "other"})})
    with pytest.raises(lms.LMStudioValueError, match="of 'other', not of 'asked'"):
        quick(client, against=other)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, lms.LMStudioOSError, "cannot read the card"),
        (b"{}", lms.LMStudioValueError, "is no card"),
        (b"\x80", lms.LMStudioValueError, "is no card"),
    ],
)
def test_a_file_that_is_no_card_is_an_error(
    client: Client, tmp_path: Path, content: bytes | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        quick(client, against=path)


@pytest.mark.parametrize(
    ("rows", "message"), [(["tool"], "no row 'tool'.*'tools'"), ([], "at least one of"), ("tools", "rows")]
)
def test_rows_that_there_are_not_are_an_error(client: Client, rows: Any, message: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=message):
        client.certify(KEY, rows=rows)


def test_all_rows_together_keep_within_what_is_promised() -> None:
    language = [row.name for row in all_rows() if "llm" in row.kinds]
    for is_quick, most_prompt, most_predicted in ((False, 90_000, 12_000), (True, 15_000, 2_000)):
        prompt, predicted = tokens_of(language, quick=is_quick)
        assert prompt <= most_prompt
        assert predicted <= most_predicted


def test_an_interrupted_call_reports_what_it_has_and_unloads_its_instance(client: Client) -> None:
    cards: list[Card] = []

    def interrupt(_row: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.certify(KEY, rows=["tools"], on_progress=interrupt, on_row=cards.append)
    (card,) = cards
    assert not card.complete
    assert 20 < len(card.row("tools").observations) < 40
    assert card.row("tools").unasked == 40 - len(card.row("tools").observations)
    assert "interrupted" in str(card)
    assert loaded(client) == []


@pytest.fixture(scope="module")
def before() -> Card:
    """A whole row of the good model, with a context of 4096 tokens."""
    with Emulator([ModelEntry(key=KEY, rules=tools())]) as server, Client(server.address) as client:
        client.llm.load_new_instance(KEY, "mine", config={"context_length": 4096})
        return client.certify(KEY, rows=["tools"])


def test_what_changed_is_shown_with_the_servers_and_the_load_settings(client: Client, before: Card) -> None:
    client.llm.load_new_instance(KEY, "mine", config={"context_length": 2048})
    same = client.certify(KEY, rows=["tools"], against=before)
    assert same.worse == []
    assert same.model_changes[0] == "context_length: 4096, now 2048"
    assert "differs    context_length: 4096, now 2048" in str(same)
    assert "same       tools" in str(same)


def test_what_broke_is_worse(before: Card) -> None:
    with Emulator([ModelEntry(key=KEY)]) as server, Client(server.address) as client:
        after = client.certify(KEY, rows=["tools"], against=before)
    (worse,) = after.worse
    assert (worse.row, worse.repetitions) == ("tools", 2)
    assert worse.before == "40 of 40"
    assert str(after).count("\n") < 12


def test_a_model_that_is_unloaded_meanwhile_ends_the_card(client: Client) -> None:
    client.llm.load_new_instance(KEY, "mine")

    def unload(_row: str, share: float) -> None:
        if 0.5 < share < 0.53:
            client.llm.unload("mine")

    cards: list[Card] = []
    with pytest.raises(lms.LMStudioModelNotFoundError):
        client.certify(KEY, rows=["tools"], on_progress=unload, on_row=cards.append)
    assert {each.outcome for each in cards[-1].row("tools").observations} == {"right"}


def test_rows_of_the_other_kind_of_model_are_an_error() -> None:
    with Emulator([ModelEntry(key="vectors", kind="embedding")]) as server, Client(server.address) as client:
        with pytest.raises(lms.LMStudioValueError, match="'vectors' is of the kind 'embedding'"):
            client.certify("vectors", rows=["tools"])
        assert client.certify("vectors", quick=True).row("embedding").share > 0


def test_what_the_server_rejects_since_the_earlier_card_is_worse() -> None:
    rejecting = ({"when": {"last": "^Write a long story"}, "then": [{"error": "no"}]}, *tools())
    with Emulator([ModelEntry(key=KEY, rules=tools())]) as server, Client(server.address) as client:
        before = client.certify(KEY, rows=["speed"])
    with Emulator([ModelEntry(key=KEY, rules=rejecting)]) as server, Client(server.address) as client:
        after = client.certify(KEY, rows=["speed"], against=before)
    lost = {change.part: change.now for change in after.worse}
    assert {name: lost[name] for name in ("alone", "at once")} == {"alone": "not observed", "at once": "not observed"}


def test_a_context_window_that_is_too_small_for_the_tools_is_named(client: Client) -> None:
    client.llm.load_new_instance(KEY, "mine", config={"context_length": 128})
    row = client.certify(KEY, rows=["tools"], quick=True).row("tools")
    assert {each.outcome for each in row.observations} == {"does not fit"}
    assert row.advice is not None
    assert "context_length" in row.advice
