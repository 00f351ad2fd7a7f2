"""Rules of scripted models: how they are written, when they apply, what the model then does."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, GenerateRequest, LoadRequest
from lmstudio_integrations.emulator.engines.scripted import (
    Rule,
    ScriptedEngine,
    Text,
    Wait,
    When,
    parse_rules,
)
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.functions import Tool
from tests.emulator.engines.scripted.models import FakeSleep, Response, events_of, generate_request, load, respond, tool

IMAGE = lms.FileHandle(name="cat.png", identifier="f1", size_bytes=3, file_type="image")


def after_tool_results(*results: str) -> lms.Chat:
    """A conversation with the results of tools, one round each."""
    chat = lms.Chat.from_history("Add")
    for result in results:
        call = {"type": "toolCallRequest", "toolCallRequest": {"name": "add", "arguments": {}}}
        chat.append({"role": "assistant", "content": [call]})
        chat.append({"role": "tool", "content": [{"type": "toolCallResult", "content": result}]})
    return chat


async def test_the_first_rule_that_fits_wins() -> None:
    rules: list[dict[str, Any]] = [
        {"when": {"last": "dog"}, "then": [{"text": "woof"}]},
        {"when": {"last": "(?i)CAT"}, "then": [{"text": "meow"}]},
        {"then": [{"text": "silence"}]},
    ]
    assert (await respond(rules, "a cat and a dog")).content == "woof"
    assert (await respond(rules, "a cat")).content == "meow"
    assert (await respond(rules, "a fish")).content == "silence"


async def test_a_text_is_a_step_and_rules_can_be_written_with_objects() -> None:
    then: Any
    for then in ("At noon.", ["At noon."], [{"text": "At "}, "noon."], [Text(text="At noon."), Wait(wait=0)]):
        assert (await respond([{"then": then}], "When?")).content == "At noon."
        assert (await respond([Rule(When(last="When"), then)], "When?")).content == "At noon."


async def test_any_tool_is_called_with_the_smallest_valid_arguments() -> None:
    rules = [{"when": {"tools": ["*"], "role": "user"}, "then": [{"tool": "*"}]}]
    response = await respond(rules, "Add", tools=[ADD, MUL])
    assert [event.name for event in response.events if isinstance(event, lms.ToolCallName)] == ["add"]
    assert (await respond(rules, "Add")).content.startswith("You said")


@pytest.mark.parametrize(
    ("question", "schema", "argument"),
    [
        ("When was Maria born?", {}, "Maria"),
        ("Weather in Oslo or Bergen?", {}, "Bergen"),
        ("How many pears?", {}, "How many pears?"),
        ("How many pears?", {"maxLength": 3}, ""),
        ("How many pears?", {"enum": ["apples", "pears"]}, "apples"),
        ("On which day?", {"format": "date"}, "2000-01-01"),
    ],
)
async def test_a_text_among_the_arguments_is_a_name_in_the_question_or_the_question(
    question: str, schema: dict[str, Any], argument: str
) -> None:
    look = tool("look", about={"type": "string", **schema})
    (end,) = (await respond([{"then": [{"tool": "*"}]}], question, tools=[look])).of_type(lms.ToolCallEnd)
    assert end.arguments == {"about": argument}


ADD, MUL = tool("add"), tool("mul")
LATE = lms.Chat.from_history({"messages": [{"role": role, "content": "Hm"} for role in ("system", "user", "system")]})
JSON = {"type": "json", "jsonSchema": {"type": "object"}}
REQUIRED: dict[str, Any] = {"tools": [ADD], "tool_choice": "required"}


@pytest.mark.parametrize(
    ("when", "fitting", "other"),
    [
        ({"role": "tool"}, {"question": after_tool_results("3")}, {}),
        ({"tools": ["add", "mul"]}, {"tools": [MUL, ADD]}, {"tools": [ADD]}),
        ({"tools": ["add"]}, {"tools": [ADD]}, {"tools": [ADD], "tool_choice": "none"}),
        ({"structured": True}, {"structured": {"type": "gbnf", "gbnfGrammar": ""}}, {"structured": {"type": "none"}}),
        (
            {"image": True},
            {"question": lms.Chat.from_history({"messages": [{"role": "user", "content": [IMAGE]}]})},
            {},
        ),
        ({"round": 1}, {}, {"question": after_tool_results("3")}),
        ({"round": 3}, {"question": after_tool_results("3", "4")}, {"question": after_tool_results("3")}),
        ({"late_system": True}, {"question": LATE}, {"question": lms.Chat("Be brief.")}),
        ({"last": "^7$", "role": "tool"}, {"question": after_tool_results("3", "7")}, {"question": "7"}),
    ],
)
async def test_a_rule_applies_only_where_its_conditions_hold(
    when: dict[str, Any], fitting: dict[str, Any], other: dict[str, Any]
) -> None:
    rules = [Rule(when, [{"text": "yes"}]), Rule(then=[{"text": "no"}])]
    assert (await respond(rules, **fitting)).content == "yes"
    assert (await respond(rules, **other)).content == "no"


async def test_a_new_user_message_begins_a_new_first_round_and_hides_older_images() -> None:
    chat = after_tool_results("3")
    chat.append({"role": "assistant", "content": "Three."})
    chat.add_user_message("And now?")
    rules = [Rule({"round": 1, "image": False}, [{"text": "first"}])]
    assert (await respond(rules, chat)).content == "first"


async def test_several_tool_results_in_a_row_belong_to_one_round() -> None:
    call = {"type": "toolCallRequest", "toolCallRequest": {"name": "add", "arguments": {}}}
    results = [{"role": "tool", "content": [{"type": "toolCallResult", "content": text}]} for text in ("3", "4")]
    messages = [{"role": "user", "content": []}, {"role": "assistant", "content": [call, call]}, *results]
    request = GenerateRequest(lms.LlmPredictionConfig(), history=ChatHistory.from_dict({"messages": messages}))
    model = await load([Rule({"round": 2, "last": "^4$"}, [{"text": "second"}])])
    assert Response(await events_of(model, request)).content == "second"


async def test_steps_are_done_in_order_with_the_last_message_put_in() -> None:
    fake_sleep = FakeSleep()
    rule = Rule(
        then=[
            {"reasoning": "They said {last}."},
            {"text": "You said {last}."},
            {"wait": 1.5},
            {"tool": "add", "arguments": {"a": 1, "b": ["{last}", {"c": "{last}!"}]}, "id": "call-1"},
        ]
    )
    model = await load([rule], engine=ScriptedEngine(fake_sleep))
    fake_sleep.seconds.clear()
    events = await events_of(model, generate_request("hi"))
    fragments = [event for event in events if isinstance(event, lms.LlmPredictionFragment)]
    assert "".join(fragment.content for fragment in fragments) == "<think>They said hi.</think>You said hi."
    assert fake_sleep.seconds == [1.5]
    assert [type(event) for event in events[len(fragments) + 2 : -1]] == [
        lms.ToolCallStart,
        lms.ToolCallName,
        *[lms.ToolCallArguments] * 6,
        lms.ToolCallEnd,
    ]
    end = events[-2]
    assert isinstance(end, lms.ToolCallEnd)
    assert (end.id, end.name, end.arguments) == ("call-1", "add", {"a": 1, "b": ["hi", {"c": "hi!"}]})


async def test_the_fragments_of_the_arguments_make_up_the_raw_content() -> None:
    got = await respond([Rule(then=[{"tool": "add", "arguments": {"a": 1, "b": "ä b"}}])])
    parts = "".join(event.content for event in got.of_type(lms.ToolCallArguments))
    (end,) = got.of_type(lms.ToolCallEnd)
    assert parts == '{"a": 1, "b": "ä b"}'
    assert end.raw_content == f'<tool_call>\n{{"name": "add", "arguments": {parts}}}\n</tool_call>'
    assert got.of_type(lms.ToolCallStart)[0].id == end.id
    assert got.of_type(lms.ToolCallName)[0].name == "add"
    assert got.end.stop_reason == "eosFound"
    two = (await respond([Rule(then=[{"tool": "add"}, {"tool": "add"}])])).of_type(lms.ToolCallEnd)
    assert len({event.id for event in two}) == 2
    assert all(event.id is not None and len(event.id) == 9 for event in two)


async def test_a_malformed_call_fails_and_keeps_what_was_written() -> None:
    got = await respond([Rule(then=[{"tool": "add", "malformed": '{"a": '}])])
    (failed,) = got.of_type(lms.ToolCallFailed)
    assert failed.error["title"].startswith("Failed to parse tool call")
    assert '{"a": ' in (failed.raw_content or "")
    assert not got.of_type(lms.ToolCallEnd)
    assert got.end.stop_reason == "eosFound"


async def test_a_required_tool_is_called_with_the_smallest_arguments() -> None:
    chosen = tool("pick", count={"type": "integer", "minimum": 3}, name={"type": "string", "minLength": 2})
    got = await respond(tools=[chosen, tool("other")], tool_choice="required")
    (end,) = got.of_type(lms.ToolCallEnd)
    assert (end.name, end.arguments) == ("pick", {"count": 3, "name": "aa"})
    for parameters in (None, {"description": "nothing"}):
        bare = Tool.from_dict({"function": {"name": "now", "parameters": parameters}})
        got = await respond(tools=[bare], tool_choice="required")
        assert got.of_type(lms.ToolCallEnd)[0].arguments == {}
    with pytest.raises(EngineError, match="no tools are given"):
        await respond(tool_choice="required")
    assert not (await respond(tools=[ADD])).of_type(lms.ToolCallStart), "optional ones are not called"


async def test_a_structured_request_gets_the_smallest_instance() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert (await respond(structured={"type": "json", "jsonSchema": schema})).content == '{"n": 0}'
    assert (await respond(structured={"type": "json"})).content == "{}"


@pytest.mark.parametrize(
    ("then", "request_", "written"),
    [
        ("It rains.", REQUIRED, "add"),
        ([{"reasoning": "Hm."}, "It rains."], REQUIRED, "add"),
        ("It rains.", {"structured": JSON}, "{}"),
        ("They said {last}.", {"structured": JSON}, "{}"),
        ('{"n": 1}', {"structured": JSON}, '{"n": 1}'),
        ("{last}", {"structured": JSON, "question": '{"n": 2}'}, '{"n": 2}'),
        ("[" * 100_000, {"structured": JSON}, "{}"),
        ([{"tool": "mul"}], {"tools": [ADD, MUL], "tool_choice": "required"}, "mul"),
        ([{"tool": "add"}, "It rains."], {"tools": [ADD], "structured": JSON}, "addIt rains."),
    ],
)
async def test_a_rule_that_says_text_leaves_a_required_call_and_json_to_the_next_rules(
    then: Any, request_: dict[str, Any], written: str
) -> None:
    response = await respond([{"when": {}, "then": then}], **request_)
    assert "".join(each.name for each in response.of_type(lms.ToolCallName)) + response.content == written


@pytest.mark.parametrize(
    ("when", "request_"),
    [
        ({"last": "Why"}, REQUIRED),
        ({"last": "Why"}, {"structured": JSON}),
        ({"structured": True}, {"structured": JSON}),
        ({"structured": False, "role": "tool"}, {**REQUIRED, "question": after_tool_results("3")}),
    ],
)
async def test_a_model_says_text_in_place_of_what_is_requested_if_the_rule_is_for_this_message_or_request(
    when: dict[str, Any], request_: dict[str, Any]
) -> None:
    assert (await respond([{"when": when, "then": "I will not."}], **request_)).content == "I will not."


async def test_required_calls_after_one_message_go_to_one_tool_after_the_other() -> None:
    first, again = after_tool_results("3"), after_tool_results("3", "4")
    again.append({"role": "assistant", "content": "Done."})
    again.add_user_message("And now?")
    called: list[str] = []
    for question, tools in (("Add", [ADD, MUL]), (first, [ADD, MUL]), (first, [ADD]), (again, [ADD, MUL])):
        response = await respond(question=question, tools=tools, tool_choice="required")
        called += [each.name for each in response.of_type(lms.ToolCallEnd)]
    assert called == ["add", "mul", "add", "add"]


CALL = {"tool": "add", "arguments": {"about": "{last}"}}


@pytest.mark.parametrize(
    ("when", "result", "applies"),
    [
        ({"last": "Add"}, "Added 3", False),
        ({"tools": ["*"]}, "3", False),
        ({"last": "Added"}, "Added 3", True),
        ({"last": "Add", "role": "tool"}, "Added 3", True),
        ({"last": "Add", "round": 2}, "Added 3", True),
        ({"last": "Add", "times": 2}, "Added 3", True),
        ({}, "3", True),
    ],
)
async def test_a_rule_that_calls_a_tool_for_a_question_does_not_apply_to_a_result_that_repeats_its_words(
    when: dict[str, Any], result: str, *, applies: bool
) -> None:
    response = await respond([{"when": when, "then": [CALL]}], after_tool_results(result), tools=[ADD])
    assert bool(response.of_type(lms.ToolCallEnd)) is applies


async def test_a_rule_that_says_text_applies_to_questions_and_results_alike() -> None:
    rules = [{"when": {"last": "Add"}, "then": "Yes."}]
    assert [(await respond(rules, each)).content for each in ("Add", after_tool_results("Added"))] == ["Yes."] * 2


@pytest.mark.parametrize(
    ("rules", "name"),
    [([{"then": "Fine."}, {"then": [CALL]}], "rule 1"), ([{"when": {"last": "snow"}, "then": "Yes."}], "no rule")],
)
async def test_a_rule_that_applies_to_ten_results_in_a_row_says_once_that_an_agent_may_loop(
    rules: list[dict[str, Any]], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = await load(rules)
    question, result = generate_request("Add"), generate_request(after_tool_results("3"))
    for request in [question] * 30 + [result] * 9 + [question] + [result] * 8:
        await events_of(model, request)
    assert not caplog.text
    for _ in range(12):
        await events_of(model, result)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"'a-model': {name} applied to 10 results of tools in a row; if an agent loops,"
    )


async def test_a_grammar_is_rejected_unless_a_rule_applies() -> None:
    grammar = {"type": "gbnf", "gbnfGrammar": 'root ::= "yes"'}
    with pytest.raises(EngineError, match="GBNF") as caught:
        await respond(structured=grammar)
    assert caught.value.suggestion is not None
    assert (await respond([Rule({"structured": True}, [{"text": "yes"}])], structured=grammar)).content == "yes"


async def test_rules_of_an_embedding_model_can_fail() -> None:
    fake_sleep = FakeSleep()
    rules = [Rule({"last": "bad"}, [{"wait": 2}, {"error": "no vector for {last}"}])]
    model = await load(rules, kind="embedding", engine=ScriptedEngine(fake_sleep))
    assert await model.embed("good")
    with pytest.raises(EngineError, match="no vector for bad"):
        await model.embed("bad")
    assert fake_sleep.seconds[-1] == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"wenn": {}, "then": []}, r"rule 1: unknown key 'wenn'; did you mean 'when'"),
        ({"when": {}}, r"rule 1: then must be a text or a list of steps, such as"),
        ({"then": 5}, r"rule 1: then must be a text or a list of steps, such as .*; got 5"),
        ({"when": "x", "then": []}, r"rule 1: when must be a table"),
        ({"when": {"lst": "x"}, "then": []}, r"rule 1: when: unknown key 'lst'; did you mean 'last'"),
        ({"when": {"role": "system"}, "then": []}, r"rule 1: when\.role='system': .*'user' or 'tool'"),
        ({"when": {"round": 0}, "then": []}, r"rule 1: when\.round=0: "),
        ({"when": {"last": "("}, "then": []}, r"rule 1: when\.last='\(': .*not a regular expression"),
        ({"then": [{"txt": "x"}]}, r"rule 1: then\[0\] needs exactly one of text, .*; did you mean 'text'"),
        ({"then": [{}]}, r"rule 1: then\[0\] needs exactly one of .* and has none of them"),
        ({"then": [{"text": "a"}, {"text": "x", "tool": "y"}]}, r"rule 1: then\[1\] .* both 'text' and 'tool'"),
        ({"then": [5]}, r"rule 1: then\[0\] must be a text or a table, got 5"),
        ({"then": [{"tool": "x", "argument": {}}]}, r"rule 1: then\[0\]: unknown key 'argument'; did you mean 'argum"),
        ({"then": [{"fault": "fire"}]}, r"rule 1: then\[0\]\.fault='fire': .*'drop'"),
        ({"then": [{"error": "x", "code": "generic.pathNotFond"}]}, r"no such code; did you mean 'generic.pathNotF"),
        ({"when": {"load": True}, "then": [{"text": "x"}]}, r"rule 1: a model that is being loaded can wait, fail"),
    ],
)
def test_an_invalid_rule_is_an_error_with_place_and_reason(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=message):
        parse_rules([rule])


async def test_invalid_rules_fail_the_load() -> None:
    request = LoadRequest("m", "llm", engine_settings={"rules": [{"then": []}, {"than": []}]})
    with pytest.raises(EngineError, match="Failed to load model") as caught:
        await ScriptedEngine(FakeSleep()).load(request, lambda _: None)
    assert "rule 2: unknown key 'than'; did you mean 'then'" in (caught.value.cause or "")
    with pytest.raises(EngineError) as caught:
        await load([Rule(then=[{"text": "hello"}])], kind="embedding")
    assert "an embedding model can wait, fail" in (caught.value.cause or "")


@pytest.mark.parametrize(
    ("rules", "message"),
    [(3, "rules must be a list of tables, got 3"), (["text"], "rule 1: a rule must be a table with when and then")],
)
def test_rules_that_are_not_a_list_of_tables_are_rejected(rules: Any, message: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=message):
        parse_rules(rules)
