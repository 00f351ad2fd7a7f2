"""Copies, pickles, dicts, worker processes, and the error when LlamaIndex is not installed."""

import copy
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.embeddings import loading as embedding_loading
from llama_index.core.embeddings.loading import load_embed_model
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.llms import loading as llm_loading
from llama_index.core.llms.loading import load_llm
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import SecretStr

from lmstudio_integrations.llama_index import (
    LlamaIndexToolCallError,
    LMStudio,
    LMStudioEmbedding,
    LMStudioTokenizer,
    register,
)

TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"  # the shape of one


def by_pickle(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def by_dict(model: Any) -> Any:
    return type(model).from_dict(model.to_dict())


def by_json(model: Any) -> Any:
    return type(model).from_json(model.to_json())


def by_class_name(model: Any) -> Any:
    register()
    load: Any = load_llm if isinstance(model, LMStudio) else load_embed_model
    return load(json.loads(model.to_json()))


WAYS: list[Callable[[Any], Any]] = [
    by_pickle, copy.copy, copy.deepcopy, by_dict, by_json, by_class_name,
    lambda model: model.model_copy(), lambda model: model.model_copy(deep=True),
]  # fmt: skip


SETTINGS: dict[Any, dict[str, Any]] = {
    LMStudio: {
        "host": "h:1",
        "model": "m",
        "ttl": 9.0,
        "timeouts": {"connect_timeout": None},
        "max_retries": 2,
        "preset": "p",
        "max_tokens": False,
        "top_p": 0,
        "repeat_penalty": False,
        "seed": 0,
        "stop": ["x"],
        "prediction_config": {"raw": {"a.b": 1}},
        "load_config": {"seed": False, "gpu": {"ratio": 0.5}, "raw": {"k": None}},
        "context_window": 512,
        "pydantic_program_mode": "llm",
        "logprobs": False,
        "is_function_calling_model": False,
    },
    LMStudioEmbedding: {
        "host": "h:1",
        "model": "m",
        "ttl": 9.0,
        "timeouts": {"connect_timeout": None},
        "embed_batch_size": 7,
        "num_workers": 2,
        "load_config": {"contextLength": 300, "ropeFrequencyBase": 0},
        "length_policy": "truncate",
    },
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_is_pickled(kind: Any, way: Callable[[Any], Any]) -> None:
    model = kind(**SETTINGS[kind])
    again = way(model)
    assert again.model_dump() == model.model_dump()
    assert model.load_config is None or again.load_config.to_dict() == model.load_config.to_dict()


@pytest.mark.exhaustive
def test_another_process_that_registers_the_classes_loads_what_was_written() -> None:
    model = LMStudio(model="m", host="127.0.0.1:9", temperature=0.5, api_token=SecretStr(TOKEN))
    written = SummaryExtractor(llm=model).to_json()
    assert TOKEN not in written
    script = (
        "import sys\n"
        "from lmstudio_integrations.llama_index import register\n"
        "register()\n"
        "from llama_index.core.embeddings.loading import load_embed_model\n"
        "from llama_index.core.extractors import SummaryExtractor\n"
        "print(repr(SummaryExtractor.from_json(sys.stdin.read()).llm))\n"
        "print(repr(load_embed_model({'class_name': 'LMStudioEmbedding'})))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script], input=written, capture_output=True, text=True, check=True, timeout=600
    )
    assert completed.stdout.splitlines() == [repr(model), repr(LMStudioEmbedding())]


@pytest.mark.parametrize("times", [1, 2])
def test_register_enters_both_classes(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(llm_loading.RECOGNIZED_LLMS, "LMStudio", raising=False)
    monkeypatch.delitem(embedding_loading.RECOGNIZED_EMBEDDINGS, "LMStudioEmbedding", raising=False)
    for _ in range(times):
        register()
    assert repr(load_llm({"class_name": "LMStudio", "model": "m"})) == repr(LMStudio(model="m"))
    assert repr(load_embed_model({"class_name": "LMStudioEmbedding"})) == repr(LMStudioEmbedding())


def test_register_without_the_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> Any:
        raise ModuleNotFoundError("No module named 'llama_index'", name="llama_index")

    monkeypatch.setattr("lmstudio_integrations._support.installation.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="LMStudio needs llama-index-core; run: "):
        register()


def test_a_mistyped_name_in_a_dump_is_still_an_error() -> None:
    with pytest.raises(ValueError, match="unknown setting 'clas_name'"):
        LMStudio(**dict[str, Any](clas_name="LMStudio"))


def test_callables_that_cannot_be_pickled_stay_and_the_object_keeps_them(caplog: pytest.LogCaptureFixture) -> None:
    llm = LMStudio(model="m", on_load_progress=lambda _: None)
    llm.callback_manager = CallbackManager([])
    assert by_pickle(llm).on_load_progress is None
    assert llm.on_load_progress is not None
    assert not caplog.records


class Remote(SimpleKVStore):
    """A cache that holds on to something that cannot be pickled, as those of databases do."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_cache_that_cannot_be_pickled_is_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = LMStudioEmbedding(model="m", embeddings_cache=Remote(), ttl=9)
    other = by_pickle(model)
    assert (other.embeddings_cache, other.ttl) == (None, 9)
    assert model.embeddings_cache is not None
    assert caplog.messages == ["this LMStudioEmbedding is pickled without embeddings_cache, which cannot be"]


@pytest.mark.parametrize("kind", [LMStudio, LMStudioEmbedding])
def test_deep_copies_share_their_rate_limiter(kind: type[Any]) -> None:
    limiter = TokenBucketRateLimiter(requests_per_minute=600)
    model = kind(model="m", rate_limiter=limiter)
    assert copy.deepcopy(model).rate_limiter is limiter
    assert copy.deepcopy([model])[0].rate_limiter is limiter
    assert model.model_copy(deep=True).rate_limiter is limiter


def test_the_error_is_pickled_with_its_attributes() -> None:
    error = by_pickle(LlamaIndexToolCallError("no", raw_content="{", text="So: "))
    assert (str(error), error.raw_content, error.text) == ("no", "{", "So: ")


# The tokenizer --------------------------------------------------------------------------------------------------------


def test_the_tokenizer_gives_the_models_tokens(llm: LMStudio) -> None:
    tokenizer = LMStudioTokenizer(llm)
    assert tokenizer("one two three") == llm.tokenize("one two three")
    assert tokenizer("") == []
    assert by_pickle(tokenizer)("one two three") == tokenizer("one two three")


def test_the_tokenizer_requests_once_for_each_text() -> None:
    texts: list[str] = []

    class Counting(LMStudio):
        def tokenize(self, text: str) -> list[int]:
            texts.append(text)
            return [1]

    tokenizer = LMStudioTokenizer(Counting(model="m"))
    tokenizer("a").append(2)
    assert tokenizer("a") == [1]
    assert texts == ["a"]


def test_a_tokenizer_is_that_of_a_model_and_not_of_its_name() -> None:
    name: Any = "m"
    with pytest.raises(ValueError, match=r"llm must be an LMStudio; got 'm'; write LMStudio\(model=…\)"):
        LMStudioTokenizer(name)
