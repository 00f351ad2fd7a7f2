"""Two calls of one response, and a chat template that takes only one in a message."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineError, template_failed
from tests._adapters.test_sent_reasoning import CALLS, FRAMEWORK_WARNINGS, Way
from tests.support import template_functions
from tests.support.template_functions import Said, TemplateEngine

pytestmark = FRAMEWORK_WARNINGS

RULES = (
    {
        "when": {"role": "user"},
        "then": [{"reasoning": "Twice."}, {"text": "I look."}, {"tool": "look"}, {"tool": "look"}],
    },
    {"then": [{"text": "It rains."}]},
)


def one_call(said: Said) -> str:
    """Reject several calls in one message."""
    if said.calls > 1:
        raise template_failed("This model only supports single tool-calls at once!")
    return template_functions.kept(said)


def no_calls(said: Said) -> str:
    """Reject any call."""
    if said.calls:
        raise template_failed("no calls, please")
    return said.text


def busy(said: Said) -> str:
    """Reject a small conversation for another reason."""
    if said.calls > 1 and not said.text:
        raise EngineError("the server is busy")
    return template_functions.kept(said)


TEMPLATES = {"several": template_functions.kept, "one": one_call, "none": no_calls, "busy": busy}

ENGINE = TemplateEngine(**TEMPLATES)


def serving() -> Emulator:
    models = [ModelEntry(key=key, rules=RULES) for key in TEMPLATES]
    return Emulator(models, engines={ENGINE.name: ENGINE}, auto_evict=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with serving() as running:
        yield running


def shape(server: Emulator) -> list[str]:
    """Return the roles of the messages of the last prompt, with the calls or results in each."""
    kinds = [
        (message["role"], [part["type"] for part in message["content"] if isinstance(part, dict)])
        for message in server.predictions[-1].messages
    ]
    return [f"{role} {sum(kind.startswith('toolCall') for kind in own) or ''}".strip() for role, own in kinds]


def together(found: list[str]) -> bool:
    """Whether both calls are in one message; results may be in one, too."""
    return found in (["user", "assistant 2", "tool 2"], ["user", "assistant 2", "tool 1", "tool 1"])


APART = ["user", "assistant 1", "tool 1", "assistant 1", "tool 1"]


@pytest.mark.parametrize("model", ["several", "one"])
@pytest.mark.parametrize("way", CALLS.values(), ids=CALLS)
def test_calls_are_sent_in_messages_of_their_own_where_the_template_takes_one(
    server: Emulator, way: Way, model: str
) -> None:
    way(server.address, model, ["Does it rain?"], {})
    found = shape(server)
    assert found == APART if model == "one" else together(found)


@pytest.mark.leaf("tool_loop")
@pytest.mark.parametrize("model", ["none", "busy"])
def test_calls_stay_together_where_that_would_not_help(model: str) -> None:
    with serving() as server:
        with suppress(lms.LMStudioError):
            CALLS["act"](server.address, model, ["Does it rain?"], {"send_reasoning": False})
        assert together(shape(server))


def chat_of(*results: str) -> lms.Chat:
    chat = lms.Chat("Be brief.")
    chat.add_user_message("Does it rain?")
    calls = [lms.ToolCallRequest(id=id_, name="look", arguments={}) for id_ in ("1", "2")]
    chat.add_assistant_response("I look.", calls)
    for id_ in results:
        chat.add_tool_result({"content": f"Rain {id_}.", "toolCallId": id_, "name": "look"})
    return chat


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (("1", "2"), ["I look.", "Rain 1.", "Rain 2."]),
        (("2", "1"), ["I look.", "Rain 1.", "Rain 2."]),
        (("1",), None),
        (("1", "3"), None),
    ],
    ids=str,
)
def test_only_calls_with_their_results_are_sent_apart(
    server: Emulator, results: tuple[str, ...], expected: list[str] | None
) -> None:
    with lms.Client(server.address) as client:
        model = client.llm.model("one")
        if expected is None:
            with pytest.raises(lms.LMStudioPromptTemplateError, match="single tool-calls"):
                model.apply_prompt_template(chat_of(*results))
            return
        prompt = model.apply_prompt_template(chat_of(*results))
    places = [prompt.find(text) for text in expected]
    assert -1 not in places
    assert places == sorted(places)
    assert prompt.count("I look.") == 1


def test_a_template_is_asked_once_and_only_where_a_message_has_several_calls() -> None:
    with serving() as server, lms.Client(server.address) as client:
        model = client.llm.model("one")
        asked = len(ENGINE.renderings)
        model.respond("Hello")
        assert len(ENGINE.renderings) == asked
        for _ in range(2):
            model.respond(chat_of("1", "2"))
        assert len(ENGINE.renderings) == asked + 2
