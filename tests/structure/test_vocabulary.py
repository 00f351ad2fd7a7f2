"""The check of the vocabulary, with planted words."""

from pathlib import Path

import pytest

from tests.structure.vocabulary import TABLE, Text, check, main, read_code, read_page, read_table, read_tree, report

TERMS = """
[[term]]
words = ["clock", "take note"]
names = ["_Kept"]
instead = "timeout"
in = "everywhere"
[[term]]
words = ["leave"]
instead = "cancel"
in = "identifiers"
[[term]]
words = ["take"]
instead = "receive"
in = "names"
[[term]]
words = ["is told"]
instead = "is sent"
in = "prose"
"""


def found(texts: list[Text], exceptions: str = "") -> list[str]:
    """Return the terms that are found, with their lines."""
    findings, _ = check(texts, read_table(TERMS + exceptions))
    return [f"{finding.term} {finding.line}" for finding in findings]


def in_code(source: str, path: str = "package/module.py") -> list[str]:
    return found(list(read_code(path, source)))


def in_page(source: str, path: str = "docs/page.md") -> list[str]:
    return found(list(read_page(path, source)))


@pytest.mark.parametrize(
    "source",
    [
        "def with_clock(): ...",
        "async def with_clock(): ...",
        "class IdleClock: ...",
        "def call(clock): ...",
        "def call(*clocks): ...",
        "def call(**clocks): ...",
        "lambda clock: None",
        "call(clock=1)",
        "clock = 1",
        "clock: int",
        "idle_clock += 1",
        "(clock := 1)",
        "self.clock = 1",
        "for clock in (): ...",
        "[clock for clock in ()]",
        "with call() as clock: ...",
        "import time as clock",
        "try: ...\nexcept ValueError as clock: ...",
        "match 1:\n    case clock: ...",
        "match 1:\n    case [*clock]: ...",
        "match 1:\n    case {**clock}: ...",
        "CLOCKS_2 = HTTPClockError = withClocks = 1",
    ],
)
def test_a_word_is_found_wherever_something_is_named(source: str) -> None:
    assert in_code(source)
    assert not in_code(source.replace("clock", "timeout").replace("Clock", "Timeout").replace("CLOCK", "TIMEOUT"))


def test_words_are_split_at_underscores_and_changes_of_case() -> None:
    assert in_code("HTTPClockError = withClocks = CLOCKS_2 = 1") == ["clock 1", "clock 1", "clock 1"]
    assert not in_code("clockwise = unclock = 1")


def test_the_name_of_a_module_of_a_package_and_of_a_page_is_one() -> None:
    assert in_code("", "package/clock.py") == ["clock 1"]
    assert in_code("", "package/clocks/__init__.py") == ["clock 1"]
    assert in_page("", "docs/idle-clocks.md") == ["clock 1"]


def test_an_identifier_counts_once_in_a_file() -> None:
    assert in_code("\nclock = 1\nclock = 2") == ["clock 2"]


def test_terms_of_several_words_and_whole_identifiers_are_found() -> None:
    assert in_code("def takes_note(): ...") == ["take note 1", "take 1"]
    assert in_code("class _Kept: ...") == ["_Kept 1"]
    assert not in_code("def note_taken(): ...\nclass Kept: ...")


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('the clock')",
        "raise ValueError(f'the clock {1}') from None",
        "raise make('the ' + 'clock')",
        "error = ValueError('the clock')",
        "warnings.warn('the clock')",
        "logger.debug('the clock %s', 1)",
        "# the clock",
        "'''The clock.'''",
        "class Made:\n    x = 1\n    '''The clocks.'''",
        "Field(1, description='the clock')",
        "Option(help='the clock')",
    ],
)
def test_a_word_is_found_in_messages_comments_and_docstrings(source: str) -> None:
    assert len(in_code(source)) == 1
    assert not in_code(source.replace("clock", "timeout"))


@pytest.mark.parametrize(
    "source", ["x = 'clock'", "print('clock')", "call(default='clock')", "# `clock` and ``a clock``", "'''`clock`'''"]
)
def test_strings_that_are_no_messages_and_code_are_passed(source: str) -> None:
    assert not in_code(source)


def test_a_phrase_is_found_across_lines_and_not_across_sentences() -> None:
    assert in_code("x = 1\n# The caller is\n# told, but only\n# once.") == ["is told 2"]
    assert in_code("'''One.\n\nThe caller is\ntold.'''") == ["is told 3"]
    assert not in_code("# It is. Told\n\n# It is\nx = 1\n# told")


def test_a_page_is_read_without_code_and_addresses() -> None:
    page = """
    # A title

    Uses `clock`, ``a `clock` `` and [a page](clock.md) of <https://clock.org/clock>.

    ```python
    clock = 1
    ```
       ~~~~
       clock
       ~~~
       ~~~~
    ::: package.clock

    The clock's hands.
    """.replace("\n    ", "\n")
    assert in_page(page) == ["clock 15"]
    assert in_page("[the clock](page.md)") == ["clock 1"]


def test_inline_code_ends_with_its_paragraph() -> None:
    assert in_page("A lone ` here.\n\nA clock, `clock`.") == ["clock 3"]
    assert in_page("A `lone\nclock` and a clock.") == ["clock 2"]


def test_a_fence_that_is_not_closed_holds_the_rest() -> None:
    assert not in_page("```\nclock\n")


def test_an_ambiguous_word_is_found_in_identifiers_only() -> None:
    assert in_code("def leaves(): ...\n# Leave it.") == ["leave 1"]
    assert not in_page("Leave it.")


def test_names_of_tests_are_sentences_for_the_most_ambiguous_words() -> None:
    assert in_code("def test_calls_take_time(): ...") == []
    assert in_code("def take_time(): ...") == ["take 1"]
    assert in_code("def test_calls_leave(): ...") == ["leave 1"]


def test_a_phrase_of_prose_may_be_a_name() -> None:
    assert not in_code("is_told = 1")


def test_exceptions_permit_identifiers_phrases_and_files() -> None:
    exceptions = """
    [[exception]]
    terms = ["clock"]
    identifiers = ["Clock"]
    phrases = ["wall clock"]
    paths = ["package/*", "tests/*"]
    reason = "it shows the time"
    [[exception]]
    terms = ["clock", "leave"]
    paths = ["docs/changes.md"]
    reason = "history"
    """
    source = "class Clock: ...\nclass Clocks: ...\nat_wall_clock = 1\n# by the wall clock, not the clock, wall"
    assert found(list(read_code("package/module.py", source)), exceptions) == ["clock 2", "clock 4"]
    assert found(list(read_code("cookbook/module.py", "class Clock: ...")), exceptions) == ["clock 1"]
    assert not found(list(read_page("docs/changes.md", "A clock.")), exceptions)


def test_exceptions_that_nothing_needs_are_reported() -> None:
    exceptions = """
    [[exception]]
    terms = ["clock"]
    identifiers = ["Clock", "clock"]
    phrases = ["wall clock"]
    reason = "it shows the time"
    [[exception]]
    terms = ["leave"]
    paths = ["docs/*"]
    reason = "history"
    """
    _, unused = check(read_code("package/module.py", "clock = 1"), read_table(TERMS + exceptions))
    assert list(map(str, unused)) == ["clock: Clock in *", "clock: wall clock in *", "leave: anything in docs/*"]


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        ('terms = ["timeout"]\nidentifiers = ["x"]\nreason = "r"', "not banned: timeout: x"),
        ('terms = ["clock"]\nreason = "r"', "needs a reason and a place"),
        ('terms = ["clock"]\nidentifiers = ["x"]\nreason = ""', "needs a reason and a place"),
    ],
)
def test_an_exception_needs_a_term_a_place_and_a_reason(exception: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(f"{TERMS}[[exception]]\n{exception}")


def test_the_report_names_place_and_replacement_by_folder_and_term() -> None:
    texts = [*read_code("b/m.py", "idle_clock = clock = leave = 1"), *read_page("a/p.md", "\nA clock.")]
    findings, _ = check(texts, read_table(TERMS))
    assert list(report(findings)) == [
        "a: 1",
        "     1 clock -> timeout",
        "         a/p.md:2: clock -> timeout  (page: a clock .)",
        "b: 3",
        "     2 clock -> timeout",
        "         b/m.py:1: clock -> timeout  (identifier: idle_clock)",
        "         b/m.py:1: clock -> timeout  (identifier: clock)",
        "     1 leave -> cancel",
        "         b/m.py:1: leave -> cancel  (identifier: leave)",
        "4 findings",
    ]
    assert len(list(report(findings, summary=True))) == 6


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small checkout with a word in each place that is read."""
    for path in ("lmstudio_integrations/a.py", "tests/b/c.py", "cookbook/d.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("farewell = 1")
    for path in ("README.md", "docs/how-to/e.md", "cookbook/README.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("A farewell.")
    return tmp_path


def test_code_and_pages_are_read(planted: Path) -> None:
    findings, _ = check(read_tree(planted), read_table(TABLE.read_text(encoding="utf-8")))
    assert [(finding.text.path, str(finding.term)) for finding in findings] == [
        ("lmstudio_integrations/a.py", "farewell"),
        ("tests/b/c.py", "farewell"),
        ("cookbook/d.py", "farewell"),
        ("README.md", "farewell"),
        ("cookbook/README.md", "farewell"),
        ("docs/how-to/e.md", "farewell"),
    ]


def test_the_command_prints_the_findings_of_a_folder_or_all_with_unused_exceptions(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--root", str(planted), "--under", "tests/b"])
    printed = capsys.readouterr().out
    assert "tests/b/c.py:1: farewell -> cancel" in printed
    assert printed.endswith("1 findings\n")
    main(["--root", str(planted), "--summary"])
    printed = capsys.readouterr().out
    assert "6 findings\nunused exception: " in printed


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def with_clocks(): ...", "clock"),
        ("def take_turn(): ...", "take"),
        ("# The client is let in.", "let in"),
        ("# The vector is handed out.", "handed out"),
        ("raise ValueError('the name must be text')", "must be text"),
        ("def test_the_judge_wants_it(): ...", "judge"),
        ("context_window = draft_model = enable_thinking = contains_drafted = 1", None),
        ("# If you leave it, ask or say so; follow the answer of this window.", None),
        ("def test_calls_take_time_and_the_server_goes_on(): ...", None),
    ],
)
def test_the_table_bans_what_it_should_and_no_more(source: str, expected: str | None) -> None:
    findings, _ = check(read_code("package/module.py", source), read_table(TABLE.read_text(encoding="utf-8")))
    assert [str(finding.term) for finding in findings][:1] == ([expected] if expected else [])
