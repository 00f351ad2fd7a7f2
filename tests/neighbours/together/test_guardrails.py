"""A guard validates what the model writes, asks again, and stands in a chain."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve
from pydantic import BaseModel

pytestmark = pytest.mark.neighbour(
    "guardrails-ai",
    group="applications",
    job="a guard validates responses, asks again, and stands in a chain",
    settings="A guard calls a function that takes `*, messages, **settings` and returns `model.invoke(messages, "
    "**settings).text`; its `to_runnable()` stands in a chain behind the model. Without `async`, it sets "
    "`temperature=0` if you do not. It writes the schema into the prompt only; `with_structured_output` in the "
    "function holds the model to it. It reports its use to its makers, unless `~/.guardrailsrc` has the line "
    "`enable_metrics=false`. When it is imported, it tries to download `punkt` of NLTK, and works without it",
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
)


class Ferry(BaseModel):
    """A ferry."""

    pier: int


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outward: list[str]) -> Iterator[None]:
    """Switch its reports off, and let its download fail."""
    (tmp_path / ".guardrailsrc").write_text("enable_metrics=false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    assert set(outward) <= {"socket.getaddrinfo raw.githubusercontent.com"}
    outward.clear()


def ask(*, messages: list[dict[str, str]], **settings: Any) -> str:
    from lmstudio_integrations.langchain import ChatLMStudio

    return ChatLMStudio(model=CHAT).invoke(messages, **settings).text


async def ask_async(*, messages: list[dict[str, str]], **settings: Any) -> str:
    from lmstudio_integrations.langchain import ChatLMStudio

    return (await ChatLMStudio(model=CHAT).ainvoke(messages, **settings)).text


def brief(on_fail: str) -> Any:
    from guardrails.validators import FailResult, PassResult, ValidationResult, Validator, register_validator

    @register_validator(name="brief", data_type="string")
    class Brief(Validator):
        def _validate(self, value: Any, metadata: dict[str, Any]) -> ValidationResult:
            return PassResult() if len(value) < 20 else FailResult(error_message="too long")

    return Brief(on_fail=on_fail)


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_guard_asks_again(serve: Serve, way: str) -> None:
    from guardrails import AsyncGuard, Guard

    server = serve(
        {"when": {"last": "too long"}, "then": "Twenty minutes."}, {"then": "It takes twenty minutes or so."}
    )
    messages = [{"role": "user", "content": "How long?"}]
    if way == "sync":
        outcome = Guard().use(brief("reask"))(ask, messages=messages, num_reasks=1)
    else:
        outcome = await AsyncGuard().use(brief("reask"))(ask_async, messages=messages, num_reasks=1)
    assert (outcome.validation_passed, outcome.validated_output) == (True, "Twenty minutes.")
    first, again = server.predictions
    assert [each["role"] for each in first.messages] == ["user"]
    assert [each["role"] for each in again.messages] == ["system", "user"]
    assert "It takes twenty minutes or so." in again.messages[1]["content"]
    temperature = 0 if way == "sync" else None
    assert [each.config.get("temperature") for each in (first, again)] == [temperature, temperature]


def test_a_guard_mends_json(serve: Serve) -> None:
    from guardrails import Guard

    server = serve({"when": {"last": "is not of type 'integer'"}, "then": '{"pier": 7}'}, {"then": '{"pier": "seven"}'})
    messages = [{"role": "user", "content": "Where is it? ${gr.complete_json_suffix_v2}"}]
    outcome = Guard.for_pydantic(Ferry)(ask, messages=messages, num_reasks=1)
    assert outcome.validated_output == {"pier": 7}
    first, _ = server.predictions
    assert '"title": "Ferry"' in first.messages[0]["content"]
    assert "structured" not in first.config


def test_a_guard_stands_in_a_chain(serve: Serve) -> None:
    from guardrails import Guard
    from guardrails.errors import ValidationError
    from langchain_core.output_parsers import StrOutputParser

    from lmstudio_integrations.langchain import ChatLMStudio

    serve({"when": {"last": "long"}, "then": "It takes twenty minutes or so."}, {"then": "At pier 7."})
    chain = ChatLMStudio(model=CHAT) | Guard().use(brief("exception")).to_runnable() | StrOutputParser()
    assert chain.invoke("Where?") == "At pier 7."
    with pytest.raises(ValidationError, match="too long"):
        chain.invoke("How long?")
