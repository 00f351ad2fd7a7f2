"""What every program does: load, ask, stream, embed, list, unload. For every release of the SDK."""

import lmstudio as lms
import pytest

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.short
CHAT, EMBEDDING = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"


def test_get_or_load_reports_progress_and_loads_once(server: Emulator, client: lms.Client) -> None:
    progress: list[float] = []
    model = client.llm.model(CHAT, ttl=60, on_load_progress=progress.append)
    again = client.llm.model(CHAT)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert model.identifier == again.identifier == CHAT
    (loaded,) = server.loaded()
    assert loaded.ttl_ms == 60_000


def test_a_model_responds(client: lms.Client) -> None:
    result = client.llm.model(CHAT).respond("Hello there", config={"temperature": 0, "maxTokens": 100})
    assert "Hello there" in result.content
    assert result.stats.stop_reason == "eosFound"
    assert result.stats.prompt_tokens_count
    assert result.stats.total_tokens_count == result.stats.prompt_tokens_count + result.stats.predicted_tokens_count
    assert result.model_info.model_key == CHAT
    assert result.load_config.context_length == 4096
    assert result.prediction_config.max_tokens == 100


def test_a_response_streams(client: lms.Client) -> None:
    progress: list[float] = []
    stream = client.llm.model(CHAT).respond_stream("Hello", on_prompt_processing_progress=progress.append)
    fragments = [fragment.content for fragment in stream]
    assert len(fragments) > 5
    assert "".join(fragments) == stream.result().content
    assert (progress[0], progress[-1]) == (0.0, 1.0)


def test_a_text_is_continued(server: Emulator, client: lms.Client) -> None:
    assert client.llm.model(CHAT).complete("Once upon a time", config={"maxTokens": 3}).stats.stop_reason == (
        "maxPredictedTokensReached"
    )
    assert server.predictions[-1].raw


def test_cancelling_stops_the_generation(server: Emulator, client: lms.Client) -> None:
    stream = client.llm.model(CHAT).respond_stream("Count to two thousand")
    for _ in stream:
        stream.cancel()
    assert stream.result().stats.stop_reason == "userStopped"
    server.wait_for(lambda: server.predictions[-1].state == "ended")
    assert server.predictions[-1].stop_reason == "userStopped"


def test_texts_are_embedded(client: lms.Client) -> None:
    vectors = client.embedding.model(EMBEDDING).embed(["one text", "another"])
    assert [len(vector) for vector in vectors] == [768, 768]
    assert vectors[0] != vectors[1]


def test_structured_output_fits_its_schema(client: lms.Client) -> None:
    class Book(lms.BaseModel):
        title: str
        pages: int

    result = client.llm.model(CHAT).respond("Name a book", response_format=Book)
    assert result.structured
    assert set(result.parsed) == {"title", "pages"}


def test_models_are_listed(client: lms.Client) -> None:
    client.llm.model(CHAT)
    assert [model.identifier for model in client.llm.list_loaded()] == [CHAT]
    assert client.embedding.list_loaded() == []
    assert {model.model_key for model in client.system.list_downloaded_models()} == {CHAT, EMBEDDING, "blind-model"}


def test_a_first_program_runs_on_the_models_of_plain_serve(plain_server: Emulator) -> None:
    with lms.Client(plain_server.address) as client:
        downloaded = client.system.list_downloaded_models()
        assert {model.model_key for model in downloaded} == {model.key for model in plain_server.catalog.models}
        for model in downloaded:
            model.model()
        assert client.llm.model().respond("Hello").content


def test_an_unloaded_model_is_not_listed(server: Emulator, client: lms.Client) -> None:
    model = client.llm.model(CHAT)
    model.unload()
    assert server.loaded() == []
    with pytest.raises(lms.LMStudioModelNotFoundError):
        model.get_info()


def test_tools_are_called_until_there_is_a_response(client: lms.Client) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    messages: list[object] = []
    rounds: list[lms.PredictionResult] = []
    model = client.llm.model(CHAT)
    act = model.act("What is 2 + 3?", [add], on_message=messages.append, on_prediction_completed=rounds.append)
    assert act.rounds == 2
    assert rounds[-1].content == "The result is 5."
    assert len(messages) == 3
