"""The words of this repository: finds those that the table replaces by others.

Reads identifiers, messages, comments, docstrings and pages, and compares them with `vocabulary.toml`, which lies beside
this file. Print every finding with `python -m tests.structure.vocabulary [--under PATH] [--summary]`. Imports the
standard library only, so that the file also runs by itself: `python vocabulary.py --root CHECKOUT`.
"""

import argparse
import ast
import io
import re
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

TABLE = Path(__file__).with_name("vocabulary.toml")
ROOT = Path(__file__).parents[2]
CODE = ("lmstudio_integrations", "tests", "cookbook")
PAGES = ("*.md", "docs/**/*.md", "cookbook/**/*.md")

Kind = Literal["identifier", "test name", "message", "comment", "docstring", "page"]
Scope = Literal["everywhere", "identifiers", "names", "prose"]

IDENTIFIERS: frozenset[Kind] = frozenset({"identifier", "test name"})
PROSE: frozenset[Kind] = frozenset({"message", "comment", "docstring", "page"})
SCOPES: dict[Scope, frozenset[Kind]] = {
    "everywhere": IDENTIFIERS | PROSE,
    "identifiers": IDENTIFIERS,
    "names": frozenset({"identifier"}),
    "prose": PROSE,
}
"""Where a term is banned. `names` passes the names of tests, which are sentences."""

LOG_CALLS = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log", "warn"})
ERRORS = ("Error", "Warning")
"""How the names of errors end, which have messages wherever they are made."""

DESCRIBED = {"Field": "description", "Option": "help", "Argument": "help"}
"""Calls of which one argument documents something, and the argument's name."""

_IN_IDENTIFIER = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_IN_PROSE = re.compile(r"[A-Za-z][\w'\u2019]*|[.,;:!?()]")
_NOT_PROSE = re.compile(
    r"^(?P<fence> *(?:```+|~~~+)).*?(?:^(?P=fence)[`~]*\s*?$|\Z)"  # fenced code
    r"|^ *:::.*?$"  # a page's reference to a module
    r"|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)"  # inline code, within a paragraph
    r"|(?<=\]\()[^)\s]*"  # the address of a link
    r"|https?://\S+",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Word:
    """A word in lower case, and the line it stands on."""

    text: str
    line: int


@dataclass(frozen=True)
class Text:
    """Words that belong together: an identifier, a message, a comment, a docstring or a page."""

    path: str
    kind: Kind
    words: Sequence[Word]
    identifier: str = ""


@dataclass(frozen=True)
class Term:
    """One or more words in a row that are banned, or a whole identifier, with what to write instead."""

    words: tuple[str, ...]
    instead: str
    kinds: frozenset[Kind]
    identifier: str = ""

    def __str__(self) -> str:
        """Return the term as the table spells it."""
        return self.identifier or " ".join(self.words)


@dataclass(frozen=True)
class Permission:
    """One item of an exception: a term may stand in an identifier, in a phrase, or anywhere in these files."""

    term: str
    paths: tuple[str, ...]
    identifier: str = ""
    phrase: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the item so that it can be found in the table."""
        return f"{self.term}: {self.identifier or ' '.join(self.phrase) or 'anything'} in {', '.join(self.paths)}"


@dataclass(frozen=True)
class Table:
    """The banned terms and the exceptions."""

    terms: Sequence[Term]
    permissions: Sequence[Permission]


@dataclass(frozen=True)
class Finding:
    """A banned term at `start` of a text."""

    term: Term
    text: Text
    start: int

    @property
    def line(self) -> int:
        """The line of the term's first word."""
        return self.text.words[self.start].line

    @property
    def context(self) -> str:
        """The identifier, or some words around the term."""
        around = self.text.words[max(0, self.start - 4) : self.start + 6]
        return self.text.identifier or " ".join(word.text for word in around)

    def __str__(self) -> str:
        """Return one line that names the place and the replacement."""
        return f"{self.text.path}:{self.line}: {self.term} -> {self.term.instead}  ({self.text.kind}: {self.context})"


def read_table(source: str) -> Table:
    """Read the table's TOML.

    Raises:
        ValueError: An exception permits nothing, or a term that is not banned.
    """
    data = tomllib.loads(source)
    terms = [term for entry in data["term"] for term in _terms(entry)]
    permissions = [permission for entry in data.get("exception", ()) for permission in _permissions(entry)]
    banned = {str(term) for term in terms}
    for permission in permissions:
        if permission.term not in banned:
            raise ValueError(f"an exception permits a term that is not banned: {permission}")
    return Table(terms, permissions)


def _terms(entry: dict[str, Any]) -> Iterator[Term]:
    kinds = SCOPES[entry["in"]]
    for term in entry.get("words", ()):
        yield Term(tuple(term.split()), entry["instead"], kinds)
    for name in entry.get("names", ()):
        yield Term((), entry["instead"], IDENTIFIERS, identifier=name)


def _permissions(entry: dict[str, Any]) -> Iterator[Permission]:
    if not entry["reason"] or not any(entry.get(key) for key in ("identifiers", "phrases", "paths")):
        raise ValueError(f"an exception needs a reason and a place: {entry}")
    paths, identifiers, phrases = tuple(entry.get("paths", ["*"])), entry.get("identifiers"), entry.get("phrases")
    for term in entry["terms"]:
        if not identifiers and not phrases:
            yield from (Permission(term, (path,)) for path in paths)
        yield from (Permission(term, paths, identifier=identifier) for identifier in identifiers or ())
        yield from (Permission(term, paths, phrase=tuple(phrase.split())) for phrase in phrases or ())


def find(texts: Iterable[Text], terms: Sequence[Term]) -> list[Finding]:
    """Return where the terms stand; an identifier counts once in a file."""
    by_word: dict[str, list[Term]] = {}
    by_name: dict[str, list[Term]] = {}
    for term in terms:
        (by_name if term.identifier else by_word).setdefault(term.identifier or term.words[0], []).append(term)
    found: dict[object, Finding] = {}
    for text in texts:
        for finding in _find_in(text, by_word, by_name):
            key = (finding.term, text.path, text.identifier or (text.kind, finding.line, finding.context))
            found.setdefault(key, finding)
    return list(found.values())


def _find_in(text: Text, by_word: dict[str, list[Term]], by_name: dict[str, list[Term]]) -> Iterator[Finding]:
    for term in by_name.get(text.identifier, ()):
        yield Finding(term, text, 0)
    for start, word in enumerate(text.words):
        for form in singulars(word.text):
            for term in by_word.get(form, ()):
                if text.kind in term.kinds and _stands_at(text.words, start, term.words):
                    yield Finding(term, text, start)


def _stands_at(words: Sequence[Word], start: int, expected: Sequence[str]) -> bool:
    there = words[start : start + len(expected)] if start >= 0 else ()
    return len(there) == len(expected) and all(
        form in singulars(word.text) for word, form in zip(there, expected, strict=True)
    )


def singulars(word: str) -> set[str]:
    """Return the word, and what it may be the plural (or the third person) of."""
    forms = {word}
    for ending, replacement in (("s", ""), ("es", ""), ("ies", "y")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            forms.add(word.removesuffix(ending) + replacement)
    return forms


def permits(permission: Permission, finding: Finding) -> bool:
    """Return whether an exception covers a finding."""
    if permission.term != str(finding.term) or not any(fnmatch(finding.text.path, path) for path in permission.paths):
        return False
    if permission.identifier:
        return permission.identifier == finding.text.identifier
    spare = len(permission.phrase) - len(finding.term.words)
    return not permission.phrase or any(
        _stands_at(finding.text.words, finding.start - before, permission.phrase) for before in range(spare + 1)
    )


def check(texts: Iterable[Text], table: Table) -> tuple[list[Finding], list[Permission]]:
    """Return the findings that no exception covers, and the exceptions that cover none."""
    findings: list[Finding] = []
    unused = set(table.permissions)
    for finding in find(texts, table.terms):
        used = [permission for permission in table.permissions if permits(permission, finding)]
        unused.difference_update(used)
        if not used:
            findings.append(finding)
    return findings, [permission for permission in table.permissions if permission in unused]


def identifier_words(name: str) -> list[str]:
    """Split an identifier at underscores and changes of case.

    An acronym and the word after it come apart: `GGUFFile` is `gguf` and `file`.
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?=[A-Z][a-z])|" + _IN_IDENTIFIER.pattern, name)]


def prose_words(source: str, line: int = 1) -> list[Word]:
    """Split prose into words; code, addresses and names of several words are none, punctuation separates."""
    cleaned = _NOT_PROSE.sub(lambda found: " , " + "\n" * found[0].count("\n"), source)
    words: list[Word] = []
    end = 0
    for found in _IN_PROSE.finditer(cleaned):
        line += cleaned.count("\n", end, found.start())
        end = found.start()
        words.append(Word(re.sub(r"['\u2019]s$", "", found[0]).lower(), line))
    return words


def read_page(path: str, source: str) -> Iterator[Text]:
    """Read a page in Markdown, and its name."""
    yield _identifier(path, Path(path).stem.replace("-", "_"), 1)
    yield Text(path, "page", prose_words(source))


def read_code(path: str, source: str) -> Iterator[Text]:
    """Read a Python file: the module's name, all identifiers, messages, comments and docstrings."""
    module = Path(path)
    yield _identifier(path, module.parent.name if module.stem == "__init__" else module.stem, 1)
    for node in ast.walk(ast.parse(source)):
        for name in _names(node):
            yield _identifier(path, name, getattr(node, "lineno", 1))
        kind, parts = _prose_of(node)
        for string, line in (found for part in parts for found in _constants(part)):
            yield Text(path, kind, prose_words(string, line))
    for line, comment in _comments(source):
        yield Text(path, "comment", prose_words(comment, line))


def _identifier(path: str, name: str, line: int) -> Text:
    kind: Kind = "test name" if name.startswith("test_") else "identifier"
    return Text(path, kind, [Word(word, line) for word in identifier_words(name)] or [Word("", line)], name)


def _names(node: ast.AST) -> Iterator[str]:
    """Yield what a node names: definitions, targets of assignments, parameters and keywords."""
    names: list[str | None] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.ExceptHandler():
            names = [node.name]
        case ast.MatchAs() | ast.MatchStar():
            names = [node.name]
        case ast.MatchMapping():
            names = [node.rest]
        case ast.arg() | ast.keyword():
            names = [node.arg]
        case ast.alias():
            names = [node.asname]
        case ast.Name(ctx=ast.Store()):
            names = [node.id]
        case ast.Attribute(ctx=ast.Store()):
            names = [node.attr]
        case _:
            pass
    yield from filter(None, names)


def _prose_of(node: ast.AST) -> tuple[Kind, Iterable[ast.AST]]:
    """Return the parts of a node whose strings people read."""
    match node:
        case ast.Expr(value=ast.Constant() as string):
            return "docstring", [string]
        case ast.Raise(exc=ast.expr() as raised):
            return "message", [raised]
        case ast.Call() if _called(node) in LOG_CALLS or _called(node).endswith(ERRORS):
            return "message", node.args
        case ast.Call() if described := DESCRIBED.get(_called(node)):
            return "docstring", [keyword.value for keyword in node.keywords if keyword.arg == described]
        case _:
            return "comment", ()


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _constants(node: ast.AST) -> Iterator[tuple[str, int]]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value, part.lineno


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments; lines below each other are one."""
    block: list[str] = []
    begin = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if block and line != begin + len(block):
            yield begin, "\n".join(block)
            block = []
        begin = begin if block else line
        block.append(token.string.lstrip("#"))
    if block:
        yield begin, "\n".join(block)


def read_tree(root: Path, under: str = "") -> Iterator[Text]:
    """Read all code and pages of a checkout, or those below a path."""
    for folder in CODE:
        for file in sorted((root / folder).rglob("*.py")):
            yield from _read_file(file, root, under)
    for file in sorted({file for pattern in PAGES for file in root.glob(pattern)}):
        yield from _read_file(file, root, under)


def _read_file(file: Path, root: Path, under: str) -> Iterator[Text]:
    path = file.relative_to(root)
    if not path.is_relative_to(under):
        return
    read = read_code if file.suffix == ".py" else read_page
    yield from read(path.as_posix(), file.read_text(encoding="utf-8"))


def report(findings: Sequence[Finding], *, summary: bool = False) -> Iterator[str]:
    """Yield the lines of a report: by folder, then by term, the most frequent first."""
    folders = Counter(Path(finding.text.path).parent.as_posix() for finding in findings)
    for folder, count in sorted(folders.items()):
        there = [finding for finding in findings if Path(finding.text.path).parent.as_posix() == folder]
        yield f"{folder}: {count}"
        for term, number in Counter(finding.term for finding in there).most_common():
            yield f"  {number:4} {term} -> {term.instead}"
            if not summary:
                yield from (f"         {finding}" for finding in there if finding.term == term)
    yield f"{len(findings)} findings"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the findings of a checkout."""
    parser = argparse.ArgumentParser(description="find words that the vocabulary replaces")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to read")
    parser.add_argument("--under", default="", help="read only this file or folder of it")
    parser.add_argument("--summary", action="store_true", help="print counts only")
    chosen = parser.parse_args(arguments)
    findings, unused = check(read_tree(chosen.root, chosen.under), read_table(TABLE.read_text(encoding="utf-8")))
    for line in report(findings, summary=chosen.summary):
        print(line)
    if not chosen.under:
        for permission in unused:
            print(f"unused exception: {permission}")


if __name__ == "__main__":
    main()
