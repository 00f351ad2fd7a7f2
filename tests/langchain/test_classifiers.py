"""`LMStudioClassifier`: the states and questions of langchain-core, its middlewares, and copies."""

import asyncio
import base64
import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AutoModeMiddleware, ModelFallbackMiddleware, ModelRouterMiddleware
from langchain.agents.middleware.model_router import ModelChoice
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.decisions import Box, Choice, ChoiceAnswer, ClassifierResponse, Noul, Score
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel, SecretStr

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import (
    LMStudioModelCrashedError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioClassifier
from tests.support.web import PIXEL

RULES = [
    {"when": {"last": "Answer with one word"}, "then": [{"probabilities": {"yes": 0.8, "no": 0.2}}]},
    {"when": {"last": "weather(.|\\n)*A\\. (small|sunny)"}, "then": [{"probabilities": {"A": 0.9, "B": 0.1}}]},
    {"when": {"last": "weather(.|\\n)*B\\. (small|sunny)"}, "then": [{"probabilities": {"A": 0.3, "B": 0.7}}]},
    {"when": {"last": "Answer with the letter"}, "then": [{"probabilities": {"A": 0.5, "B": 0.5}}]},
]
URGENT = Noul(instructions="Is it urgent?")
SKY = Choice(instructions="How is the sky?", criteria={"sunny": "no cloud", "grey": None})
MOOD = Score(instructions="How good?", criteria=["bad", "good"])

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


@pytest.fixture
def server() -> Iterator[Emulator]:
    models = [{"key": key, "rule": RULES} for key in ("small", "large")]
    with Emulator(models) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def classify(request: pytest.FixtureRequest, server: Emulator) -> Callable[..., ClassifierResponse]:
    """Call a classifier, sync or async."""

    def call(state: Any, **questions: Any) -> ClassifierResponse:
        classifier = LMStudioClassifier(model="small", host=server.address)
        request_: Any = {"state": state, "questions": questions}
        if request.param == "sync":
            return classifier.invoke(request_)
        return asyncio.run(classifier.ainvoke(request_))

    return call


def test_questions_get_the_answers_of_core(classify: Callable[..., ClassifierResponse], server: Emulator) -> None:
    response = classify("What fine weather", urgent=URGENT, sky=SKY, mood=MOOD)
    assert response.model == "small"
    assert response.nouls["urgent"].noul == pytest.approx(0.8)
    sky = response.choices["sky"]
    assert sky.choice == "sunny"
    assert sky.confidence == pytest.approx(0.8)
    assert sky.probabilities == pytest.approx({"sunny": 0.8, "grey": 0.2})
    assert response.scores["mood"].legend == {0: "bad", 1: "good"}
    assert response.scores["mood"].score == pytest.approx(0.5)
    assert response.usage is not None
    assert response.usage["output_tokens"] == len(server.predictions) == 5


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (HumanMessage("Hi"), "{"),
        ([HumanMessage("Hi"), AIMessage([{"type": "text", "text": "Yes?"}])], "user: Hi\nassistant: Yes?\n"),
        ({"messages": [HumanMessage("Hi")]}, "user: Hi\n"),
        (
            [
                AIMessage("", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "1"}]),
                ToolMessage("3", tool_call_id="1"),
            ],
            'assistant: \n{"tool_calls": [{"name": "f", "args": {"a": 1}}]}\ntool: 3\n',
        ),
        ({"ticket": {"from": HumanMessage("Hi")}}, '{"ticket": {"from": {"role": "user", "content": "Hi"}}}\n'),
        ((HumanMessage("Hi"), AIMessage("Yes?")), "user: Hi\nassistant: Yes?\n"),
    ],
    ids=["a message", "messages", "an agent's state", "a call", "messages in JSON", "a tuple"],
)
def test_every_form_of_a_state_is_text(
    classify: Callable[..., ClassifierResponse], server: Emulator, state: Any, text: str
) -> None:
    classify(state, urgent=URGENT)
    assert text in str(server.predictions[0].prompt)


THOUGHT = "the user has authorized everything"
CALL = {"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}
SAID = AIMessage("I will look.", tool_calls=[CALL], additional_kwargs={"reasoning_content": THOUGHT})
SAID_V1 = AIMessage([{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": "I will look."}, CALL])
SAID_ELSEWHERE = AIMessage(
    [
        {"type": "thinking", "thinking": THOUGHT, "signature": "x"},
        {"type": "text", "text": "I will look."},
        {"type": "tool_use", "name": "f", "input": {"a": 1}, "id": "1"},
    ],
    tool_calls=[CALL],
)


class AgentState(BaseModel):
    """A state of LangGraph as a pydantic object."""

    messages: list[BaseMessage]
    at: date = date(2026, 1, 2)


@dataclass
class DataState:
    """A state of LangGraph as a dataclass."""

    messages: list[BaseMessage]
    at: date = date(2026, 1, 2)


@pytest.mark.parametrize("said", [SAID, SAID_V1, SAID_ELSEWHERE, ChatMessage(content="I will look.", role="assistant")])
@pytest.mark.parametrize(
    "as_state",
    [
        lambda said: [said],
        lambda said: {"messages": [said], "tool_call": "f(1)"},
        lambda said: AgentState(messages=[said]),
        lambda said: DataState([said]),
        lambda said: {"messages": [said.model_dump()]},
        lambda said: [AIMessageChunk(**said.model_dump(exclude={"type", "role"}))],
    ],
    ids=["messages", "a guard's", "pydantic", "a dataclass", "dumped", "a chunk"],
)
def test_of_a_message_of_a_model_only_its_text_and_each_call_are_judged(
    classify: Callable[..., ClassifierResponse], server: Emulator, said: Any, as_state: Callable[[Any], Any]
) -> None:
    classify(as_state(said), urgent=URGENT)
    (prediction,) = server.predictions
    prompt = str(prediction.prompt)
    assert THOUGHT not in prompt
    assert prompt.count("I will look.") == 1
    assert prompt.count('{"name": "f", "args": {"a": 1}}') == len(getattr(said, "tool_calls", []))
    assert "assistant" in prompt
    assert "AIMessageChunk" not in prompt


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_guard_does_not_read_the_thoughts_of_the_agent(server: Emulator, version: Any, streamed: bool) -> None:
    def delete_file(path: str) -> str:
        """Delete a file."""
        return path

    call = {"tool": "delete_file", "arguments": {"path": "/"}}
    rules = [
        {"when": {"role": "user"}, "then": [{"reasoning": THOUGHT}, {"text": "I delete it."}, call]},
        {"then": "?"},
    ]
    with Emulator([{"key": "agent", "rule": rules}]) as agents:
        guard = AutoModeMiddleware(
            tools=["delete_file"], classifier=LMStudioClassifier(model="small", host=server.address)
        )
        chat = ChatLMStudio(model="agent", host=agents.address, output_version=version)
        agent = create_agent(chat, tools=[delete_file], middleware=[guard])
        asked: Any = {"messages": [HumanMessage("Delete everything")]}
        streams: Any = agent.stream(asked, stream_mode=["messages", "values"]) if streamed else ()
        state: Any = list(streams)[-1][1] if streamed else agent.invoke(asked)
    assert any(THOUGHT in str(message) for message in state["messages"]), "the agent had this thought"
    prompt = str(server.predictions[0].prompt)
    assert THOUGHT not in prompt
    assert prompt.count("I delete it.") == 1
    assert prompt.count("delete_file") == 2, "once in the message, once as the call that is judged"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"at": date(2026, 1, 2)}, '{"at": "2026-01-02"}'),
        ((AgentState(messages=[]),), '[{"messages": [], "at": "2026-01-02"}]'),
        ({"secret": SecretStr("hush")}, '{"secret": "**********"}'),
    ],
    ids=["a date", "pydantic", "a secret"],
)
def test_what_can_be_json_is_a_state(
    classify: Callable[..., ClassifierResponse], server: Emulator, state: Any, text: str
) -> None:
    classify(state, urgent=URGENT)
    assert text in str(server.predictions[0].prompt)


def contains_itself() -> list[Any]:
    circular: list[Any] = []
    circular.append({"again": circular})
    return circular


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else "x"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("x", "the input must be {'state': ..., 'questions': {...}}; got 'x'"),
        (None, "the input must be {'state': ..., 'questions': {...}}; got None"),
        ({"state": "x"}, "the input must be {'state': ..., 'questions': {...}}; got {'state': 'x'}"),
        ({"state": "x", "questions": [URGENT]}, "questions must be an object with at least one question by its id"),
        ({"state": "x", "questions": {}}, "questions must be an object with at least one question by its id; got {}"),
        ({"state": "x", "questions": {"q": "Is it urgent?"}}, "write Noul(instructions='Is it urgent?')"),
        ({"state": "x", "questions": {"q": None}}, "questions.q: a question must be a Noul, a Choice or a Score"),
        ({"state": "x", "questions": {"q": Noul}}, "questions.q: a question must be a Noul, a Choice or a Score"),
        ({"state": "x", "questions": {"q": {"type": "nope"}}}, "questions.q: its type is 'nope'; known are noul"),
        ({"state": contains_itself(), "questions": {"q": URGENT}}, "or contains itself"),
        ({"state": nested(300), "questions": {"q": URGENT}}, "the state is nested"),
        ({"state": {"a": object()}, "questions": {"q": URGENT}}, "the state must be text or JSON"),
        ({"state": None, "questions": {"q": URGENT}}, "the state must be text, an object or a list; got None"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_wrong_in_an_input_is_named(server: Emulator, request_: Any, text: str, is_async: bool) -> None:
    classifier = LMStudioClassifier(model="small", host=server.address)
    with pytest.raises(LMStudioValueError, match=re.escape(text)) as caught:
        asyncio.run(classifier.ainvoke(request_)) if is_async else classifier.invoke(request_)
    assert isinstance(caught.value, ModelInvalidRequestError)
    assert not server.predictions


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"timeout": 3}, "a call of a classifier has no settings; got timeout=3; write LMStudioClassifier(timeout=3)"),
        ({"request_timeout": 3}, "got request_timeout=3; write LMStudioClassifier(request_timeout=3)"),
        ({"model": "large"}, "got model='large'; write LMStudioClassifier(model='large')"),
        ({"permutation": 1}, "got permutation=1; did you mean 'permutations'?"),
    ],
)
def test_settings_of_a_call_are_errors_where_they_are_written(server: Emulator, given: Any, text: str) -> None:
    classifier = LMStudioClassifier(model="small", host=server.address)
    request: Any = {"state": "x", "questions": {"urgent": URGENT}}
    with pytest.raises(LMStudioValueError, match=re.escape(text)):
        classifier.bind(**given)
    with pytest.raises(LMStudioValueError, match=re.escape(text)):
        classifier.invoke(request, **given)
    with pytest.raises(LMStudioValueError, match=re.escape(text)):
        asyncio.run(classifier.ainvoke(request, **given))
    assert classifier.bind(timeout=None).invoke(request, model=None).nouls["urgent"].noul == pytest.approx(0.8)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_the_model_would_not_give_is_an_error(is_async: bool) -> None:
    rest = {f"w{number}": 0.0998 for number in range(10)}
    rule = {"then": [{"probabilities": {"yes": 0.0015, "no": 0.0005, **rest}}]}
    with Emulator([{"key": "small", "rule": [rule]}]) as server:
        classifier = LMStudioClassifier(model="small", host=server.address)
        request: Any = {"state": "x", "questions": {"urgent": URGENT}}
        with pytest.raises(LMStudioUnsupportedError, match=r"gives 0\.2% of the probability.*'urgent' has no answer"):
            asyncio.run(classifier.ainvoke(request)) if is_async else classifier.invoke(request)


def test_what_no_model_answers_is_a_typed_error(classify: Callable[..., ClassifierResponse]) -> None:
    with pytest.raises(LMStudioUnsupportedError, match="'where' is a Box"):
        classify("x", where=Box(instructions="Where is it?"))
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    with pytest.raises(LMStudioValueError, match="of the type 'image_url'"):
        classify([HumanMessage([image])], urgent=URGENT)


def test_batches_copies_and_pickles(server: Emulator) -> None:
    settings: Any = {"model_name": "small", "base_url": server.address, "permutations": 1}
    classifier = LMStudioClassifier(**settings)
    copied = pickle.loads(pickle.dumps(classifier))
    assert copied == classifier
    requests: Any = [{"state": f"state {number}", "questions": {"urgent": URGENT}} for number in range(4)]
    assert [each.nouls["urgent"].noul for each in copied.batch(requests)] == pytest.approx([0.8] * 4)


DECIDES = [{"then": [{"answers": {"urgent": 0.9, "sky": {"sunny": 0.7, "grey": 0.3}}}]}]
QUESTIONS = {"urgent": URGENT, "sky": SKY}
IMAGE = {"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_decision_model_is_asked_all_questions_at_once(is_async: bool, count: int) -> None:
    """Its kind is known after the first call, also if it is on several hosts."""
    models = [{"key": "judge", "kind": "decision", "rule": DECIDES, "vision": True}]
    with ExitStack() as stack:
        servers = [stack.enter_context(Emulator(models)) for _ in range(count)]
        host = [each.address for each in servers]
        classifier = LMStudioClassifier(model="judge", host=host, load_config={"context_length": 2048})
        request: Any = {"state": [HumanMessage(["What is it?", IMAGE])], "questions": QUESTIONS}
        for _ in range(2):
            response = asyncio.run(classifier.ainvoke(request)) if is_async else classifier.invoke(request)
            assert response.nouls["urgent"].noul == 0.9
            assert response.choices["sky"].confidence == 0.7
        assert sum(each.loaded for each in classifier.hosts()) >= 1
        assert classifier.load() is classifier
        classifier.close()


def test_the_kind_of_a_model_is_found_when_it_is_loaded(server: Emulator) -> None:
    models: list[Any] = [{"key": "judge", "kind": "decision", "rule": DECIDES}, {"key": "vectors", "kind": "embedding"}]
    with Emulator(models) as judges:
        classifier = LMStudioClassifier(model="judge", host=judges.address, unload_on_close=True).load()
        with pytest.raises(LMStudioUnsupportedError, match="does not support image input"):
            classifier.invoke({"state": [HumanMessage([IMAGE])], "questions": {"urgent": URGENT}})
        classifier.close()
        with lms.Client(judges.address) as client:
            assert client.list_loaded_models() == []
        with pytest.raises(LMStudioWrongModelKindError, match=r'use LMStudioEmbeddings\(model="vectors"\)'):
            LMStudioClassifier(model="vectors", host=judges.address).load()
        with pytest.raises(LMStudioWrongModelKindError, match=r'use LMStudioClassifier\(model="judge"\)'):
            ChatLMStudio(model="judge", host=judges.address).invoke("Hi")


class Recorder(BaseCallbackHandler):
    """Keeps the metadata of runs."""

    def __init__(self) -> None:
        self.metadata: list[Any] = []

    def on_chain_start(self, *_: Any, **kwargs: Any) -> None:
        self.metadata.append(kwargs["metadata"])


def test_a_trace_names_the_provider_and_the_model(server: Emulator) -> None:
    recorder, classifier = Recorder(), LMStudioClassifier(model="small", host=server.address)
    request: Any = {"state": "x", "questions": {"urgent": URGENT}}
    classifier.invoke(request, {"callbacks": [recorder]})
    (metadata,) = recorder.metadata
    assert {"ls_provider": "lmstudio", "ls_model_name": "small"}.items() <= metadata.items()


def test_the_router_of_langchain_routes_with_it(server: Emulator) -> None:
    chat = {key: ChatLMStudio(model=key, host=server.address) for key in ("small", "large")}
    choices = {
        "small": ModelChoice(chat["small"], "small talk about the weather"),
        "large": ModelChoice(chat["large"], "mathematics"),
    }
    router = ModelRouterMiddleware(
        choices=choices,
        instructions="Which model is enough?",
        classifier=LMStudioClassifier(model="small", host=server.address),
    )
    agent = create_agent(chat["large"], middleware=[router])
    state: Any = agent.invoke({"messages": [HumanMessage("Is the weather fine?")]})
    assert isinstance(state["model_route"], ChoiceAnswer)
    assert state["model_route"].choice == "small"
    assert server.predictions[-1].model == "small"


ROUTE = {"then": [{"answers": {"model_route": {"large": 0.9}}}]}
ROUTED: list[Any] = [
    {"key": "judge", "kind": "decision", "rule": [ROUTE]},
    {"key": "large", "rule": [{"then": [{"fault": "crash"}]}]},
    {"key": "spare", "rule": [{"then": "I help out."}]},
]
"""A judge that sends everything to a model that crashes, and one that helps out."""


@pytest.fixture
def routed() -> Iterator[Emulator]:
    with Emulator(ROUTED) as running:
        yield running


def router_and_spare(routed: Emulator) -> tuple[Any, ChatLMStudio]:
    """Return the router of a server, and the model that it does not choose."""
    large, spare = (ChatLMStudio(model=key, host=routed.address) for key in ("large", "spare"))
    router = ModelRouterMiddleware(
        choices={"large": ModelChoice(large, "mathematics"), "spare": ModelChoice(spare, "small talk")},
        instructions="Which model is enough?",
        classifier=LMStudioClassifier(model="judge", host=routed.address),
    )
    return router, spare


def run_agent(agent: Any, how: str, *messages: BaseMessage) -> Any:
    question = {"messages": [*messages]}
    return agent.invoke(question) if how == "sync" else asyncio.run(agent.ainvoke(question))


@sync_and_async
def test_a_fallback_after_the_router_answers_for_the_routed_model(routed: Emulator, how: str) -> None:
    router, spare = router_and_spare(routed)
    agent = create_agent(spare, middleware=[router, ModelFallbackMiddleware(spare)])
    state = run_agent(agent, how, HumanMessage("How much is 17 * 23?"))
    assert state["messages"][-1].text == "I help out."
    assert [prediction.model for prediction in routed.predictions] == ["large", "spare"]


@sync_and_async
def test_a_fallback_before_the_router_asks_the_routed_model_again(routed: Emulator, how: str) -> None:
    """So that the page on middleware has to name the order."""
    router, spare = router_and_spare(routed)
    agent = create_agent(spare, middleware=[ModelFallbackMiddleware(spare), router])
    with pytest.raises(LMStudioModelCrashedError):
        run_agent(agent, how, HumanMessage("How much is 17 * 23?"))
    assert [prediction.model for prediction in routed.predictions] == ["large", "large"]


@sync_and_async
@pytest.mark.parametrize("messages", [[SystemMessage("Be brief.")], [AIMessage("Hello.")], []])
def test_a_conversation_without_the_user_is_not_routed(routed: Emulator, how: str, messages: Any) -> None:
    router, spare = router_and_spare(routed)
    with pytest.raises(ValueError, match="requires a HumanMessage"):
        run_agent(create_agent(spare, middleware=[router]), how, *messages)
    assert (routed.predictions, routed.decisions) == ((), ())


def test_the_schemas_of_a_classifier_and_of_agents_with_it_are_json(routed: Emulator) -> None:
    router, spare = router_and_spare(routed)
    for runnable, member in ((router.classifier, "questions"), (create_agent(spare, middleware=[router]), "messages")):
        assert f'"{member}": {{' in json.dumps(runnable.get_input_jsonschema())
        assert runnable.get_output_jsonschema()["properties"]


def test_the_guard_of_langchain_blocks_a_call_that_is_not_safe(server: Emulator) -> None:
    ran: list[str] = []

    def delete_file(path: str) -> str:
        """Delete a file."""
        ran.append(path)
        return "gone"

    call = {"tool": "delete_file", "arguments": {"path": "/"}}
    rules = [{"when": {"role": "user", "tools": ["delete_file"]}, "then": [call]}, {"then": "I did not."}]
    with Emulator([{"key": "agent", "rule": rules}]) as agents:
        guard = AutoModeMiddleware(
            tools=["delete_file"], classifier=LMStudioClassifier(model="small", host=server.address)
        )
        agent = create_agent(ChatLMStudio(model="agent", host=agents.address), tools=[delete_file], middleware=[guard])
        state: Any = agent.invoke({"messages": [HumanMessage("Delete everything")]})
    assert not ran
    assert [each.status for each in state["messages"] if isinstance(each, ToolMessage)] == ["error"]
    assert "delete_file" in str(server.predictions[0].prompt)
