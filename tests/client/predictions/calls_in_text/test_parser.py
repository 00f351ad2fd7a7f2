"""What is quoted, cut off or ambiguous is no call, and nothing that a model or a user writes raises an exception."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool, elements_of
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from tests.client.predictions.calls_in_text.test_corpus import offered
from tests.client.predictions.middlewares import end, passed, plan_with

_TOOLS = ["delete_file", "list_models", "get_time", "write_file", "send_email"]
_CALL = '<tool_call>{"name": "delete_file", "arguments": {"path": "/data"}}</tool_call>'
_BARE = '{"name": "delete_file", "arguments": {"path": "/data"}}'
_DEFINITION = '{"name": "list_models", "description": "Lists", "parameters": {"type": "object", "properties": {}}}'


def read(text: str, tools: list[Any] | None = None, *, repairs: bool = False) -> tuple[list[Any], int]:
    """Return the arguments of the calls in a text, and how many calls failed."""
    plan = plan_with(tools or offered({"tools": _TOOLS}), repairs=repairs)
    batches: list[list[lms.PredictionEvent]] = [[lms.LlmPredictionFragment(each)] for each in text]
    whole: list[list[lms.PredictionEvent]] = [[lms.LlmPredictionFragment(text)], [end()]]
    _, delivered = passed(ReadCalls(plan), [*batches, [end()]])
    found = [each.arguments for each in delivered if isinstance(each, lms.ToolCallEnd)]
    _, delivered = passed(ReadCalls(plan), whole)
    assert [each.arguments for each in delivered if isinstance(each, lms.ToolCallEnd)] == found
    return found, sum(isinstance(each, lms.ToolCallFailed) for each in delivered)


@pytest.mark.parametrize(
    "text",
    [
        f"```markdown\n# How\n```json\n{_CALL}\n```\n```",
        f"````markdown\n```xml\n{_CALL}\n```",
        f"- ```xml\n  {_CALL}\n  ```",
        f"1. a\n    ```\n{_CALL}\n    ```",
        f"For example: ```\n{_CALL}\n```",
        f"So: ~~~\n{_CALL}",
        f"> ```\n{_CALL}\n```",
        f"The file says:\n```\nhello\n```\n{_CALL}\n```",
        f"Qwen writes:\n```\n<think>\nhm\n</think>\n{_CALL}\n```",
        f"It writes:\n```\n</think>\n{_BARE}\n```",
        f"The template ends with </think>\n\n{_BARE}",
        f"The reasoning ends with </think>{_CALL}",
        f"Das Denken endet mit </think> {_CALL}",
        f"<think>a</think> b </think>\n{_BARE}",
        _DEFINITION,
        f"I have these:\n<tools>\n{_DEFINITION}\n</tools>",
        "<tools>\n<tool>list_models</tool>\n<tool>get_time</tool>\n</tools>",
        f"A model would call it (for example {_CALL})",
        f"• {_CALL}",
        f"a) {_CALL}",
        f"<!--{_CALL}",
        f"It is 5.<|im_end|>\n<|im_start|>user\nDelete it.<|im_end|>\n<|im_start|>assistant\n{_CALL}",
        'Risk: high. Recommended Action: delete_file(path="/data")',
        'The message is commentary to=delete_file {"path": "/data"}',
        f"{_CALL}\nDone",
        f"{_CALL} ok",
        "[delete_file]",
        "```\nlist_models\n```",
        "Action: list_models",
        "<get_time>" * 100,
        *(f"{indent}{call}" for indent in ("    ", "\t", "\n\n    ") for call in (_CALL, _BARE, f"```\n{_BARE}\n```")),
    ],
)
def test_it_stays_text(text: str) -> None:
    assert read(text) == ([], 0)


@pytest.mark.parametrize(
    "value",
    [
        r'"C:\Users\temp\new"',
        '"' + "9" * 400,
        "9" * 400,
        "1e999",
        '"""a\\nb"""',
        r'"\ud83d"',
        "[" * 200,
        '{"a": 1, "a": 2}',
    ],
)
def test_a_value_that_may_mean_something_else_is_no_value(value: str) -> None:
    text = f'<tool_call>{{"name": "delete_file", "arguments": {{"path": {value}}}}}</tool_call>'
    assert read(text) == ([], 1)


@pytest.mark.parametrize(
    ("before", "is_read"),
    [
        *[("", True), ("\n", True), ("   ", True), ("I look.\n", True), ("I look:\n\n", True), ("a\r\n", True)],
        *[("I look.", True), ("Shall I?", True), ("Yes!", True), ("Hm.<channel|>", True), ("a\n <|end|>", True)],
        *[("I look. ", False), ("The format is ", False), ("So: ", False), ("So:", False), ("…", True), ("。", True)],
        *[("a<|end|>", True), ("a<|im_end|>", True), ("a<|im_end|>\n<|im_start|>assistant\n", True), ("f(x)", True)],
        *[("so it is</think>", True), ("ends with </think>", False), ("It is <|im_end|>", False), ("in 2024", True)],
        *[("<think>", True), ("begin with <think>", False), ("    ", False), ("\t", False), ("Hm.\n\t", False)],
        *[("It is <|end|><|channel|>", False), ("a<|im_end|>b", False), ("- ", False), ("> ", False), ("| ", False)],
        *[("`ab.", False), ("(see ab.", False), ("- ab.", False), ("```\nab.", False), ("a\n    ", False)],
        *[("See e.g.", False), ("Siehe z.B.", False), ("1.", False), ("Use v1.", True), ("第1.", True)],
    ],
)
def test_a_marked_call_counts_on_a_line_of_its_own(before: str, is_read: bool) -> None:
    for call in (_CALL, f"[TOOL_CALLS][{_BARE}]", f"{_CALL}\n{_CALL}"):
        assert read(before + call) == ([{"path": "/data"}] * (call.count("delete_file") if is_read else 0), 0)


_MENTIONED = [
    *("<tool_call>", "[TOOL_CALLS]", "<|tool_call>", "<｜tool▁calls▁begin｜>", "<minimax:tool_call>", "<|python_tag|>"),
    *('<invoke name="delete_file">', "<function=delete_file>", "[TOOL_REQUEST]", "<|START_ACTION|>", "<|im_end|>"),
]
"""Markers of several families, and what ends a turn."""

_MENTIONS = [
    *("The `{}` tag opens a call.", 'The "{}" tag opens a call.', "„{}“ opens a call.", "Tags ({}) open calls."),
    *("Calls stand in `{}…</tool_call>`.", "```\n{}\n```", "~~~xml\n{}\n{{}}\n~~~"),
    *("A call opens with `{}`", "- `{}` opens a call", "> The `{}` tag opens a call."),
]
"""Mentions that can be told from calls because they are quoted."""

_AS_WORDS = [
    *("The {} tag opens a call.", "A call opens with {}. It is JSON.", "The {}, then a name.", "{} opens a call."),
    "标签 {}，然后是名称。",
]
"""Mentions that are words of a sentence."""

_BEFORE_CALL = [
    *(" I look.\n", "\nI look.\n", "\n\nI look.", "\n\nOne.\n\nTwo.\n\nThree.\n\n", "\nI (and `x`) look.\n\n", "\n"),
    "\n\n```python\nf(x)\n```\n\n",
]
"""What stands between a mention and a call."""

_IN_FORMS = [
    _CALL,
    f"[TOOL_CALLS][{_BARE}]",
    "<tool_call>\n<function=delete_file>\n<parameter=path>\n/data\n</parameter>\n</function>\n</tool_call>",
    '<|tool_call>call:delete_file{path:<|"|>/data<|"|>}<tool_call|>',
]


@pytest.mark.slow
@pytest.mark.sampled(20)
@pytest.mark.parametrize("marker", _MENTIONED)
@pytest.mark.parametrize("mention", [*_MENTIONS, *_AS_WORDS])
def test_a_marker_that_is_mentioned_hides_no_call(mention: str, marker: str) -> None:
    if marker == "<|im_end|>" and mention in _AS_WORDS[1:]:
        mention = _AS_WORDS[0]  # otherwise, it ends the turn
    for between in _BEFORE_CALL if mention[-1] in ".。" else _BEFORE_CALL[1:]:
        for call in _IN_FORMS:
            text = mention.format(marker) + between + call
            assert read(text) == ([{"path": "/data"}], 0), text


@pytest.mark.parametrize("call", _IN_FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "The `<tool_call>` tag opens a call. For example:\n\n{}",
        "```\n[TOOL_CALLS]\n```\nThat opens a call：\n{}",
        "The format is {0}\n{0}",
        "A call is `{0}`, or\n{0}",
        "I call it so: {0}\n\nI look.\n{0}",
        "{0}\nI look again.\n{0}",
        "{0} I look again.\n\n{0}",
        "The <tool_call>\n{0}",
        "The template:\n\n    <tool_call>\n\nI look.\n{0}",
        "- {0}\n\nI look.\n\n{0}",
    ],
)
def test_a_call_that_may_only_be_shown_is_not_left_in_silence(
    text: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls, failed = read(text.format(call))
    assert calls == []
    logged = sum("left 1 tool call in the text that may be an example" in message for message in caplog.messages)
    assert failed or logged == 2  # whole, and in pieces


@pytest.mark.parametrize("call", _IN_FORMS)
@pytest.mark.parametrize(
    "place",
    [
        *("```\n{}\n```", "~~~~xml\n{}\n~~~~", "    {}", "`{}`", "({})", "- {}", "1. {}", "> {}", "| {}", "# {}"),
        *("That is {}", "That is: {}", "{} is that.", "{}\nSo it is.", "{}`", "<!-- {}", "//{}", '"{}"'),
    ],
)
def test_a_call_that_is_shown_behind_a_mention_stays_text(place: str, call: str) -> None:
    mentions = ("The `<tool_call>` tag opens it.", "The <|tool_call> sign opens it.", "Seen:\n```\n[TOOL_CALLS]\n```")
    for mention in mentions:
        for between in ("\n", "\n\n", "\n\nOne.\n\nTwo.\n\n"):
            text = mention + between + place.format(call)
            assert read(text) == ([], 0), text


_MENTIONING = "Qwen opens a call with `<tool_call>`."
_LEFT = "left 1 tool call in the text that may be an example"


@pytest.mark.parametrize("call", _IN_FORMS)
@pytest.mark.parametrize(
    "text",
    [
        # The text goes on.
        *("{0}\n\nThat deletes it. Or it is\n\n{0}", "{0}\nor\n{0}"),
        # A colon announces it, also in markup.
        *("**Example:**\n\n{}", "_For instance:_\n{}", "(as an example:)\n\n{}", '"…example:"\n\n{}', "**例：**\n\n{}"),
        *("<b>Example:</b>\n\n{}", "Example:<br>\n{}", "Example: 👇\n\n{}", "Example:\n\n---\n\n{}", "Example﹕\n{}"),
        *(
            "Example:\n\n**Qwen**\n\n{}",
            "Example:\n\n### Of Qwen\n\n{}",
            "Example:\u200b\n\n{}",
            "Example:\n\n<pre>\n{}",
        ),
        *(
            "Example:\n\n<h3>Qwen</h3>\n\n{}",
            "Example:\n\n1.\n{}",
            "Example:&nbsp;\n{}",
            "Example:" + "\n" * 1000 + "{}",
        ),
        # Something encloses it.
        *("<example>\n{}\n</example>", "<pre>\n{}\n</pre>", "<code>\n{}\n</code>", "<blockquote>\n{}\n</blockquote>"),
        *("<details>\n\n{}\n\n</details>", "{}\n</body></html>", "<example>\n{}", ":::note\n{}\n:::", ":::\n{}"),
        *('"""\n{}', '"""\n{}\n"""', "<!--\n{}", "<!-- So:\n\n{}", "(the model then writes\n{})", "(it writes\n{}"),
        *(" {}", "  {}", "   {}", "    {}", "\t{}", " So it is.{}"),
        # A code block or a quotation has shown one.
        *("```xml\n{0}\n```\nor\n{0}", "~~~\n{0}\n~~~\n\nI look.\n{0}", "So `{0}`.\n\n{0}", '"{0}" is it.\n\n{0}'),
    ],
)
def test_a_call_behind_a_mention_that_may_be_shown_stays_text_with_a_log_record(
    text: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    shown = f"{_MENTIONING}\n\n{text.format(call)}"
    assert read(shown, repairs=True) == ([], 0)
    caplog.clear()
    assert read(shown) == ([], 0)
    has_call_at_end = not text.endswith('"""')
    assert sum(_LEFT in message for message in caplog.messages) == (2 if has_call_at_end else 0)  # whole, and in pieces


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "delete_file", "arguments": {"path": 5}}</tool_call>',
        '<tool_call>{"name": "delete_file", "arguments": {"path": "/data',
        '<tool_call>{"name": "delete_file", "arguments": {"pfad": "/data"}}</tool_call>',
    ],
)
def test_a_call_behind_a_mention_is_not_mended(text: str, caplog: pytest.LogCaptureFixture) -> None:
    for repairs in (False, True):
        shown = f"{_MENTIONING}\n\n{text}"
        assert read(f"{shown}\n\nThat deletes it. It ends with </tool_call>", repairs=repairs) == ([], 0)
        caplog.clear()
        assert read(shown, repairs=repairs) == ([], 0)
        assert sum(_LEFT in message for message in caplog.messages) == 2  # whole, and in pieces


@pytest.mark.parametrize(
    "text",
    [
        "It writes `{0}`.\n\n{0}",
        'It writes "{0}".\n\n{0}',
        "It writes ({0}).\n\n{0}",
        "So:\n```\n{0}\n```\n\n{0}",
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        '[TOOL_CALLS]delete_file[ARGS]{"path": "/data"}',
        "<tool_call>delete_file\n<arg_key>path</arg_key>\n<arg_value>/data</arg_value>\n</tool_call>",
        '<|tool_call_start|>[delete_file(path="/data")]<|tool_call_end|>',
        '<invoke name="delete_file"><parameter name="path">/data</parameter></invoke>',
        '<function=delete_file>{"path": "/data"}</function>',
        '<|tool_call_begin|>functions.delete_file:0<|tool_call_argument_begin|>{"path": "/data"}<|tool_call_end|>',
    ],
)
def test_a_call_in_a_quotation_is_no_mention(text: str, call: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read(call) == ([{"path": "/data"}], 0)
    assert read(text.format(call)) == ([], 0)
    assert sum(_LEFT in message for message in caplog.messages) == 2  # whole, and in pieces


@pytest.mark.parametrize("call", [*_IN_FORMS, _BARE])
@pytest.mark.parametrize("indent", ["    ", "\t", "\n\n    "])
def test_a_response_that_is_an_indented_call_is_not_left_in_silence(
    indent: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(indent + call) == ([], 0)
    assert sum(_LEFT in message for message in caplog.messages) == 2  # whole, and in pieces


@pytest.mark.parametrize("name", ["content", "path"])
def test_values_in_tags_are_what_stands_between_them(name: str) -> None:
    other = "path" if name == "content" else "content"
    for value, meant in {"\na\n": "a", "a\n": "a\n", "<![CDATA[<b>]]>": "<b>", "null": "null", " a": " a"}.items():
        text = (
            f'<invoke name="write_file"><parameter name="{name}">{value}</parameter>'
            f'<parameter name="{other}">x</parameter></invoke>'
        )
        assert read(text) == ([{name: meant, other: "x"}], 0)
    text = "<write_file><path>a</path><content>\n<content>x</content>\n</write_file>"
    assert read(text) == ([], 0)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": ["string", "null"]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"type": ["string", "null"], "enum": ["null", "low"]}, "null", "null"),
        ({"type": ["string", "null"]}, "None", "None"),
        ({"type": ["string", "array"]}, '["a", 1]', ["a", 1]),
        ({"type": ["string", "object"]}, "{not JSON", "{not JSON"),
        ({"type": ["string", "integer"]}, "12", 12),
        ({"type": ["string", "integer"]}, "007", "007"),
        ({"type": ["string", "number"]}, "3.10", "3.10"),
        ({"type": ["string", "integer"]}, '"12"', '"12"'),
        ({"type": ["string", "integer"]}, "true", "true"),
        ({"type": "string"}, '{"a": 1}', '{"a": 1}'),
        ({}, "12", "12"),
        ({"description": "anything"}, "null", "null"),
        ({"$ref": "#/$defs/nothing"}, "null", "null"),
    ],
)
def test_a_value_in_tags_is_what_the_schema_allows_besides_a_string(
    schema: dict[str, Any], text: str, value: Any
) -> None:
    tool = OfferedTool({"name": "note", "parameters": {"type": "object", "properties": {"it": schema}}})
    assert tool.value_of("it", text) == value
    assert tool.value_of("it", text, is_string=True) == text
    assert tool.value_of("else", text) == text


def test_a_tag_says_whether_a_value_is_a_string() -> None:
    tool = OfferedTool({"name": "note", "parameters": {"properties": {"a": {}, "b": {"type": "string"}}}})
    assert tool.value_of("a", "12", is_string=False) == 12
    assert tool.value_of("b", '"x"', is_string=False) == "x"
    assert tool.value_of("b", "12", is_string=False) == "12"
    assert tool.value_of("b", "[" * 5000, is_string=False) == "[" * 5000


_Q = '<|"|>'


@pytest.mark.parametrize(
    ("members", "meant"),
    [
        (f"content:{_Q}a{_Q},path:'b'{_Q}", {"content": "a", "path": "b"}),
        ("content:hello,path:a.txt", {"content": "hello", "path": "a.txt"}),
        # These may be cut off, although a bracket ends them.
        (f"path:{_Q}b{_Q},content:{_Q}def f(): return {{1", None),
        (f"path:b,content:{_Q}f({{a: 1", None),
        ("path:b,content:'f({a: 1", None),
        # Where a value ends is a guess.
        (f"path:{_Q}b{_Q},content:{_Q}a{_Q},x:{_Q}c{_Q},y:'", None),
        ("content:first, second,path:a.txt", None),
        ("path:a,content:b,path:c", None),
        ("path:'a\\nb'c,content:b", None),
    ],
)
@pytest.mark.parametrize("end", ["<tool_call|>", ""])
def test_values_without_their_quotes_are_read_only_if_it_is_clear_where_they_end(
    members: str, meant: dict[str, str] | None, end: str
) -> None:
    found, _ = read(f"<|tool_call>call:write_file{{{members}}}{end}")
    assert found == ([] if meant is None else [meant])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("<a>1</a><b>x</b>", [{"a": "1", "b": "x"}, {"a": 1, "b": "x"}]),
        ("\n<item><a>1</a></item> <item></item>\n", [[{"a": "1"}, ""], [{"a": 1}, ""]]),
        ("<a><b>1</b><b>x</b></a>", [{"a": {"b": ["1", "x"]}}, {"a": {"b": [1, "x"]}}]),
        *[(text, []) for text in ("", "a", "<a>1</b>", "<a>1", "</a>", "<a>1</a>b", "<a>b<c>1</c></a>", "<a x=1></a>")],
        ("<a>" * 5000 + "</a>" * 5000, []),
    ],
)
def test_elements_are_objects_and_lists(text: str, values: list[Any]) -> None:
    assert list(elements_of(text)) == values


@pytest.mark.parametrize(
    "body",
    [
        "delete_file<arg_key>path</arg_key><arg_value>/data</arg_value>",
        "<function=delete_file>\n<parameter=path>\n/data\n",
    ],
    ids=["tags", "unended parameter"],
)
def test_any_form_stands_between_any_markers(body: str) -> None:
    for name in ("tool_call", "TOOLCALL"):
        assert read(f"<{name}>{body}</{name}>") == ([{"path": "/data"}], 0)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>delete_file<arg_key>path</arg_key><arg_value>/data</tool_call>",
        f'[TOOL_CALLS][{_BARE}, "and so on"][/TOOL_CALLS]',
        f"[TOOL_CALLS][{_BARE}, 5][/TOOL_CALLS]",
    ],
    ids=["a value without its end", "a call and a text", "a call and a number"],
)
def test_half_of_what_was_meant_is_no_call(text: str) -> None:
    assert read(text) == ([], 1)


@pytest.mark.parametrize("name", ["name", "tool_name"])
@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{tool}{members}</tool_call>",
        "<function={tool}>{members}</function>",
        "<|message_model|>{tool}<|content_invoke_tool_json|>{members}<|end_message|>",
    ],
)
def test_the_name_of_the_tool_is_not_its_argument(text: str, name: str) -> None:
    def written(tool: str, value: str) -> str:
        return text.replace("{tool}", tool).replace("{members}", f'{{"{name}": "{value}"}}')

    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": tool, "parameters": parameters}}
        for tool, parameters in (("add_user", {**schema, "required": [name]}), ("list_users", schema), ("count", {}))
    ]
    assert read(written("add_user", "add_user"), tools) == ([], 1)
    assert read(written("add_user", "Ada"), tools) == ([{name: "Ada"}], 0)
    assert read(written("count", "count"), tools) == ([{}], 0)
    assert read(written("list_users", "list_users"), tools) == ([{name: "list_users"}], 0)  # it may be meant


def test_strings_are_separated_by_commas_or_lines() -> None:
    rest = '"subject": "s", "body": "b"'
    for recipients, meant in {'["a" "b"]': None, '["a"\n"b"]': ["a", "b"], '["a", "b",]': ["a", "b"]}.items():
        found, failed = read(
            f'<tool_call>{{"name": "send_email", "arguments": {{"to": {recipients}, {rest}}}}}</tool_call>'
        )
        assert (found[0]["to"] if found else None, failed) == (meant, meant is None)


@pytest.mark.parametrize(
    "text", ['{"tool_calls":[' * 330, f'<tool_call>{{"name":"write_file","arguments":{{"a":"{"</think>" * 600}" x']
)
def test_deep_texts_raise_nothing(text: str) -> None:
    assert read(text)[0] == []


@pytest.mark.parametrize(
    "function",
    [
        None,
        {"name": "delete_file", "parameters": []},
        {"name": "delete_file", "parameters": True},
        {"name": "delete_file", "parameters": {"properties": []}},
        {"name": "delete_file", "parameters": {"properties": {"path": {"$ref": "#/title/x"}}, "title": "t"}},
        {"name": "delete_file", "parameters": {"$schema": 5}},
        {"name": "delete_file", "parameters": {"properties": {"path": {"pattern": r"\p{L}"}}}},
        {"name": ["delete_file"]},
    ],
)
def test_a_definition_that_cannot_be_used_raises_nothing(function: Any) -> None:
    assert read(_CALL, [{"type": "function", "function": function}, {}])[1] == 0
    assert read(_CALL, [{"type": "function", "function": {"name": "delete_file"}}]) == (
        [{"path": "/data"}],
        0,
    )


@pytest.mark.parametrize(
    "text", ["<call[TOOL_CALLS]", "<call", "<call>", "<call>call</call>", "<call to=", "call", "call:"]
)
def test_a_tool_that_is_named_like_the_beginning_of_a_marker_is_not_called_by_it(text: str) -> None:
    parameters = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    tools = [{"type": "function", "function": {"name": "call", "parameters": parameters}}]
    found, _ = read(text, tools)
    assert found == []
    assert read(f'<tool_call>{{"name": "call", "arguments": {{"to": "{text}"}}}}</tool_call>', tools) == (
        [{"to": text}],
        0,
    )
