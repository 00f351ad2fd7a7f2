"""Decides what looks like a secret, and removes it from errors, URLs and log records.

`errors.py` redacts every message of the package with it; the types and the adapters redact values that pydantic shows.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from keyword import iskeyword
from typing import TypeVar, cast
from urllib.parse import urlsplit

from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from lmstudio_integrations._support.typeguards import is_mapping

ErrorT = TypeVar("ErrorT", bound=Exception)

HIDDEN = "**********"
"""Replaces a secret, as in the `repr` of pydantic's `SecretStr`."""

TOKEN_PREFIX = "sk-lm-"  # noqa: S105 - the prefix of all LM Studio API tokens

_NAMES = (
    "token",
    "apitoken",
    "accesstoken",
    "apikey",
    "secret",
    "password",
    "passkey",
    "passphrase",
    "authorization",
    "headers",
)
KEYS = (
    *("access", "account", "admin", "api", "app", "auth", "client", "consumer", "decryption", "deploy", "encryption"),
    *("function", "hmac", "host", "license", "master", "private", "root", "session", "shared", "signing", "ssh"),
    *("storage", "subscription", "webhook"),
)
"""Words before `key` in the name of a secret."""

IN_NAMES = (
    *("apitoken", "authoris", "authoriz", "bearer", "connectionstring", "cookie", "credential", "passcode", "passkey"),
    *("passphrase", "passw", "secret"),
)
"""Letters in the name of a secret, whatever stands between its words."""

LAST_WORDS = ("auth", "creds", "jwt", "otp", "pass", "psk", "pw", "pwd")
"""Last words of the name of a secret."""

ENDS = (
    "token",
    "header",
    "headers",
    "sessid",
    "sessionid",
    *(f"{each}tokens" for each in ("access", "auth", "refresh", "session")),
)
"""Last letters of the name of a secret."""

_IN_NAME = rf"{'|'.join(IN_NAMES)}|pluginconfig|(?:{'|'.join(KEYS)})key|(?:{'|'.join(ENDS)})$"
_WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
_OF_TEXTS = r"(?i)(?:bos|eos|cls|end|first|last|mask|next|pad|per|sep|start|stop|unk)_?token$"
"""Members that have a token of a text, and look like those that have an API token."""

_IN_ADDRESS_NAME = r"host|base_?url|api_?base|proxy|endpoint|address"
_LONGEST_NAME, _NAME_CUTOFF = 128, 0.75
"""How long a mistyped name may be, and how similar it must be, 0 to 1; `max_tokens` is below."""

_OTHERS = (
    r"gh[oprsu]_[a-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"  # GitHub, GitLab
    r"|hf_[a-z0-9]{20,}|gsk_[a-z0-9]{20,}|lsv2_[a-z]{2}_\w{20,}|tvly-[\w-]{20,}"  # Hugging Face, Groq, LangSmith …
    r"|(?-i:A(?:KIA|SIA)[A-Z0-9]{16})(?![a-z0-9])|(?-i:AIza[\w-]{20,}|ya29\.[\w-]{20,})"  # AWS, Google
    r"|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|[rs]k_(?:live|test)_[a-z0-9]{16,}"  # Slack, Stripe
    r"|npm_[a-z0-9]{30,}|pypi-[\w-]{30,}|dckr_pat_[\w-]{20,}|(?-i:hvs\.[\w-]{20,})"  # Docker, Vault
    r"|xai-[\w-]{20,}|nvapi-[\w-]{20,}|pplx-[a-z0-9]{20,}|r8_[a-z0-9]{20,}"  # NVIDIA, Perplexity, Replicate …
    r"|(?-i:GOCSPX-[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,})"  # Google, SendGrid
    r"|(?-i:eyJ[\w-]{8,}\.[\w-]+\.[\w.-]*)"  # JSON Web Tokens
)
"""API tokens of others, which their prefixes tell."""

_PRIVATE = r"[A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"

_OF_PROSE = r"(?-i:[{<]?[A-Z]?[a-z_-]++[^\s\w'\"\\]*+(?:[\s'\"\\]|\Z))"
"""A word of letters, or a place where a token is to be written."""

_VALUE = (
    # API tokens of LM Studio and of others, also after an escaped line break, and beside letters of any language
    rf"(?a:(?:(?<![a-z0-9])|(?<=\\[nrt]))(?:{TOKEN_PREFIX}[a-z0-9][\w:-]*|sk-[\w-]{{6,}}))"
    rf"|(?a:(?:(?<![\w.-])|(?<=\\[nrt]))(?:{_OTHERS}))"
    r"|(?<![a-z0-9])[a-z0-9]{8}:[a-z0-9]{20}(?![a-z0-9])"  # the two halves of one, without the prefix
    rf"|(?<=(?a:\b)bearer\s)(?!{_OF_PROSE})[^\s'\"\\]{{8,}}|(?<=(?a:\b)authorization: basic )[^\s'\"\\]+"
    rf"|-----BEGIN {_PRIVATE}(?s:(?!-----).)*(?:-----END {_PRIVATE})?"
    r"|(?<=://)(?:[^/\s'\":@]+:(?!\d{1,5}/)[^\s'\"]{1,256}|[^/\s'\"]+)(?=@)"  # user and password of a URL
    r"|(?<=[?&#])(?:[^=&\s]{0,64}(?:token|key|secret|passw|signature|credential)[^=&\s]{0,64}"  # a query or fragment
    r"|pwd|pass|sig|auth|jwt)=[^&\s'\"]+"
)
"""Runs in linear time, because the text may be a whole image in base64.

Without a scheme, `x:y@z` is as well the tag of a model or an e-mail address: see `redact_address`.
"""

_CREDENTIALS = r"(?<![^/\s'\":@])[^/\s'\":@]+:[^/\s'\":@]+(?=@\w)"

NAMING = ("key", "name", "field", "label", "id", "argument", "parameter", "variable", "selector", "element")
"""Members that say what a neighbor of `NAMED` is."""

NAMED = ("value", "text")
"""Members whose neighbors say what they are."""

_JOINED = r"(?i:authorization|cookie)(?![\w.-])|\w[\w.]{0,99}?[-_]"
"""The beginning of the name of a header or of a variable: other words are beside each other for other reasons."""

_SCHEMA = r"""\s*+\\*+["'](?:type|\$ref|anyOf|oneOf|allOf|enum|const|title|description|properties|items)\\*+["']\s*+:"""
"""A member of which a JSON schema has at least one."""

_CODE = r"\\+u00([0-7][0-9a-fA-F])"
_BLANK = r"[^\S\r\n]"
_QUOTE = r"""\\*+["']"""
_STRING = r"""(?s:[bfru]{0,2}(?P<quote>\\*+(?:\"{3}|'{3}|["'`]))(?P<string>.*?)(?:(?<!\\)(?P=quote)|\\?\Z))"""
_NAMES_OF_CODE = r"""\((?![^()]{0,200}["'\d])"""
"""Brackets around names of a program."""

_OPENING = rf"(?!{_NAMES_OF_CODE})(?P<opening>[\[{{(])(?!{_SCHEMA})"
_TYPE = (
    r"(?i:str|string|text|bytes|int|integer|float|number|bool|boolean|any|object|optional|secretstr|none|null|undefined"
    r"|true|false|dict|list|set|tuple|mapping|sequence|iterable|callable|literal|union)(?:\[[^\]\r\n]{0,100}\])?"
    rf"(?:{_BLANK}*+\|{_BLANK}*+(?:None|null|undefined)\b)?(?=[^\w-]|\Z)"
)
_BARE = (
    r"""(?P<bare>(?:[^\s"'`\\<,;&]|<(?!/?[A-Za-z][^<>\s]{0,40}+>)|[,;&](?!\s|\\|\Z|[\w.-]{1,100}+[ \t]*+[=:])"""
    r"""|\\++(?:["'`](?=\w)|(?!["'`]))|["'`](?=\w))++)"""
)
_BELOW = (
    rf"(?:[|>][+-]?{_BLANK}*+)?+\r?\n(?:(?P<indent>{_BLANK}++)(?P<below>\S[^\r\n]*+)"
    rf"|(?:`{{3}}\w*+\r?\n|{_BLANK}*+(?=\S*\d))?(?P<alone>[\w+/=.!@#$%^&*-]{{3,}}+)(?={_BLANK}*+[\r\n]|\Z))"
)
_MEMBER_VALUE = rf"{_STRING}|(?P<number>-?\d[\w.+-]*+)|{_OPENING}"

_NO_LIST_OF_NAMES = "".join(
    rf"(?<!{word}{behind}{blank})" for word in ("enum", "required") for behind in ("[\"']:", ":") for blank in ("", " ")
)
"""A list in a JSON schema has names, and not one name and its value."""

_OF_OBJECT = r"{(?:[^{}]|{(?:[^{}]|{(?:[^{}]|{[^{}]{0,200}+}){0,200}+}){0,200}+}){0,200}+}"

_LABEL = (
    rf"""(?<![\w\\])(?:{_QUOTE})?(?:{"|".join(NAMING)})(?:{_QUOTE})?{_BLANK}*+[:=]{_BLANK}*+"""
    rf"""(?P<around>(?:{_QUOTE})?)"""
    rf"""(?P<name>[#\w.-]{{1,100}}+(?:[\w .$/:-]{{1,100}}+(?={_QUOTE}))?)(?P=around)(?![\w.-])"""
)
_VALUE_MEMBER = rf"""(?:{_QUOTE})?(?P<member>{"|".join(NAMED)})(?:{_QUOTE})?{_BLANK}*+[:=]\s*+"""

_MEMBER = (
    rf"(?<!\\)(?P<opened>{_QUOTE})(?P<name>(?:[\w .$/:-]|{_CODE}){{1,100}}+)(?P=opened)\s*+(?:[:\uff1a]|=>?(?!=))\s*+"
)
_LABELED = rf"{_LABEL}(?:[^{{}}<>]|{_OF_OBJECT}){{0,200}}?(?<![\w\\]){_VALUE_MEMBER}"
_LABELED_BEHIND = (
    rf"""(?<![\w\\]){_VALUE_MEMBER}(?=(?:\\*+["'][^"'\r\n]{{0,1000}}\\*+["']|(?!{_TYPE})[^\s"'\\,;{{}}\[\]]{{1,1000}}+)"""
    rf"""\s*+,?\s*+{_LABEL})"""
)
_ELEMENT = (
    rf"<(?P<parameter>(?:parameter|param|arg|property)(?:=|\s++name=(?:{_QUOTE})?))?(?P<name>\w[\w.:-]{{0,99}}+)"
    r"[^<>]{0,200}+>(?(parameter)\s*+|(?=(?:<!\[CDATA\[)?[^<]++</(?P=name)>))"
)
_LISTED = (
    rf"""(?:(?P<pair>{_NO_LIST_OF_NAMES}[\[(]\s*+)|(?<!\\))(?P<opened>{_QUOTE})(?:(?P<dashes>-++)|(?(pair)(?={_JOINED})|(?!)))"""
    r"""(?P<name>[\w.-]{1,100}+)(?P=opened)\s*+,\s*+"""
    r"""(?(dashes)|(?=[bfru]{0,2}\\*+["'][^"'\r\n]*+["']\s*+[\])]))"""
)
_PROSE = (
    rf"[*`]{{0,3}}+{_BLANK}*+(?:\r?\n{_BLANK}*+)?(?!(?i:basic|bearer|digest) )"
    r"[^\W\d_]{1,40}+(?:['\u2019/-][^\W\d_]{1,40}+){0,5}+(?![\w:=]),?"
    rf"{_BLANK}++(?![*`]{{0,3}}+\w{{1,100}}+{_BLANK}*+[:=])(?:[\"'`(\[{{<*]|[^\W\d]{{1,40}}+(?![\d=]))"
)
"""A sentence that says something of the name: a word of letters and another word, which is no further name."""

_SEPARATOR = (
    r"""(?:\\*+["']\]|[*`]{0,3}+)"""
    rf"{_BLANK}*+(?::{_BLANK}*+{_TYPE}{_BLANK}*+=(?!=)|(?::(?![:=])|=>)(?!{_PROSE})|:=|[\uff1a\uff1d]|={{1,3}}+(?!>))"
    rf"[*`]{{0,3}}+{_BLANK}*+"
)
_ASSIGNMENT = (
    r"(?:(?P<line>(?m:^)[ \t]*+(?:-[ \t]++)?)|(?<![\w.-])(?!(?<=\\)[nrt][\w-])|(?<=\\)(?P<escaped>[nrt])(?=[\w-]))"
    r"(?:(?P<before>\w{1,30}+)[ ]|(?P<dashes>-++))?(?P<name>\w[\w.-]{0,99}+)"
    rf"(?:{_SEPARATOR}|(?(dashes)[ \t]++(?!-)|(?!)))"
)
_CALL = r"[A-Za-z_][\w.]*+\((?:[^()\r\n]{0,200}+[()]|[^()\r\n]{0,200}+(?<=[(,])[ \t]*+[\r\n])"
_NO_VALUE = (
    rf"{_TYPE}|{_CALL}|[A-Za-z_][\w.]*+\[[\"']"  # what a program has there
    r"|\$\{|\$[A-Z_]++(?!\w)|%s|#\s"  # a place for a value, or a remark
    rf"|{_NAMES_OF_CODE}|\*?\([a-z]++\)|[^\W\d]++:\s|`~"  # what a page says of a parameter
)
_ASSIGNED = rf"(?!{_NO_VALUE})(?:{_STRING}|{_OPENING}|{_BELOW}|(?:(?i:basic|bearer) )?+{_BARE})"
_HEADER, _LINE, _BEFORE_QUOTE = r"(?i)authorization|cookie", r"[^\r\n]++", r"""(?:[^\\"'\r\n]|\\++(?!["']))++"""
"""The value of a header has blanks: it goes on to the end of its line, or to the quote around both."""

_PLACES = (
    (_MEMBER, _MEMBER_VALUE),
    (_LABELED, rf"{_MEMBER_VALUE}|(?P<bare>[^\s,;}}\]>]++)"),
    (_LABELED_BEHIND, rf"{_STRING}|(?P<number>-?\d[\w.+-]*+)(?=[\s,])|(?P<bare>[^\s,;]++)"),
    (_ELEMENT, r"(?P<string>(?:<!\[CDATA\[)?[^<]+)"),
    (_LISTED, _STRING),
    (_ASSIGNMENT, _ASSIGNED),
)
"""Where texts have a name, and what its value is there:

- A member of an object in JSON or Python; a label beside a value, which may come first; an element of XML, or a
  parameter of a call in it; in a list, what follows a flag, or the name of a header in a pair, which may be the
  arguments of a call. Further quotes may enclose both, so theirs are escaped. A value may be cut off.
- A name anywhere in a line, `=`, `:` or the blank after a flag, and a value: settings, shells, headers, connection
  strings, URLs, calls, YAML, prose. The value ends with its quotes, at a blank, or before a further assignment; or it
  stands below. `_NO_VALUE` and `_PROSE` have what stands there instead.
"""

_AFTER_VALUE = ".,;:)]}&|*"
"""Characters after a value that belong to the text around it."""

_BRACKET_OR_STRING = (
    r"""(?P<bracket>[\[{(\])}])|(?<=[\[{(,:=\s])(?P<quote>\\*+["'])(?:(?!(?<!\\)(?P=quote))[^\r\n]){0,300}+(?P=quote)"""
    r"(?=\s{0,100}+[,:\])}])"
)

_LONGEST_URL = 120

_SHORTEST = 4
"""Characters of a secret that is looked for among the words of a text."""


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name, even mistyped, is a secret."""
    if _is_secret(name):
        return True
    # A comparison takes quadratic time.
    return len(name) <= _LONGEST_NAME and bool(get_close_matches(_plain(name), _NAMES, cutoff=_NAME_CUTOFF))


@lru_cache(maxsize=4096)  # texts repeat their names
def is_secret_member(name: str) -> bool:
    """Whether a member of this name is a secret, in data of others, whose names are not mistyped ones of ours."""
    name = re.sub(_CODE, lambda code: chr(int(code[1], 16)), name)
    return _is_secret(name) and not re.search(_OF_TEXTS, name)


def is_secret_beside(name: str, member: str = "") -> bool:
    """Whether what stands beside a name is a secret: a member of `NAMED`, or else the second of two in a list."""
    if member == "text":  # then a header is a part of a page
        name = re.sub(r"(?i)[\W_]{0,9}headers?$", "", name)
    return is_secret_member(name) and bool(member or re.match(_JOINED, name))


def _is_secret(name: str) -> bool:
    return bool(re.search(_IN_NAME, _plain(name))) or (re.findall(_WORD, name) or [""])[-1].lower() in LAST_WORDS


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def redact(text: str) -> str:
    """Return a text without tokens and without the credentials of URLs."""
    # Compiled with the first use: only errors need it, and it takes 10 ms.
    return re.sub(_VALUE, HIDDEN, text, flags=re.IGNORECASE)


def redact_address(text: str) -> str:
    """Do the same in a text that is an address, or says what is wrong with one: user and password need no scheme."""
    return redact(re.sub(_CREDENTIALS, HIDDEN, text))


def redact_members(text: str) -> str:
    """Return a text of a model, a server or a tool, or its beginning, without the values under the names of secrets."""
    parts, at = list[str](), 0
    for start, end, by in sorted(_found(text), key=lambda span: (span[0], -span[1])):
        if end > max(start, at):
            parts += (text[at:start], by if start >= at else HIDDEN)
            at = end
    return "".join(parts) + text[at:]


def redact_received(text: str) -> str:
    """Do the same, and remove tokens and the credentials of URLs."""
    return redact(redact_members(text))


def _found(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield where each form of a name and its value stands in a text, and what replaces the value."""
    for pattern, value_pattern in _PLACES:
        at = 0
        while (found := re.compile(pattern).search(text, at)) is not None:
            name = defaultdict(str, found.groupdict(""))
            at = found.end("name" if name["member"] else 0)  # between a label and its value may be others
            value = re.compile(value_pattern).match(text, found.end()) if _is_secret_word(name) else None
            if value is not None and _is_value(found, value):
                hidden = _hidden(text, value, found)
                if not name["member"]:
                    at = max(at, hidden[1])  # what is in a value is not searched again
                yield hidden


def _is_secret_word(name: Mapping[str, str]) -> bool:
    """Whether a name, of one word or two, is that of a secret."""
    if name["member"]:
        return is_secret_beside(name["name"], name["member"])
    words = f"{name['before']}_{name['name']}"
    # After a backslash, the first letter is that of the name, or a line break.
    return any(map(is_secret_member, (words, name["escaped"] + name["name"]))) and not re.search(_OF_TEXTS, words)


def _is_value(name: re.Match[str], value: re.Match[str]) -> bool:
    """Whether a name has this value: not itself, nor the lines of a statement, nor the next member of YAML."""
    if value[0].rstrip(_AFTER_VALUE).lower() == name["name"].lower():
        return False
    indent, line = value.groupdict().get("indent"), name.groupdict().get("line")
    return indent is None or (line is not None and not iskeyword(name["before"] or "") and len(indent) > len(line))


def _hidden(text: str, value: re.Match[str], found: re.Match[str]) -> tuple[int, int, str]:
    """Return the part of a value that is hidden, and what replaces it."""
    kind, name = value.lastgroup or "", found.groupdict()
    (start, end), quote = value.span(kind), name.get("opened") or '"'
    if kind == "opening":
        end = _end_of_brackets(text, start)
    elif kind == "below":  # its first line was read, and is no name of its own
        lines = re.compile(rf"(?:\r?\n{re.escape(value['indent'])}[^\r\n]*+)*+").match(text, end)
        end = lines.end() if lines else end
    elif kind == "bare":
        if re.search(_HEADER, found["name"]):
            rest = re.compile(_LINE if name.get("line") is not None else _BEFORE_QUOTE).match(text, start)
            end = rest.end() if rest else end
        end = start + len(text[start:end].rstrip(_AFTER_VALUE))
    return start, end, f"{quote}{HIDDEN}{quote}" if kind in {"opening", "number"} else HIDDEN


def _end_of_brackets(text: str, start: int) -> int:
    """Return where a list or object ends, or may end at the latest; brackets in its strings are none."""
    depth = 0
    for found in re.compile(_BRACKET_OR_STRING).finditer(text, start):
        if found["bracket"]:
            depth += 1 if found[0] in "[{(" else -1
        if not depth:
            return found.end()
    return len(text)


def redact_values(text: str, value: object, path: Iterable[object]) -> str:
    """Return a text about a value without the secrets in that value.

    Args:
        text: For example what a validator says.
        value: What it says that about.
        path: Where the value is: the names of the members that lead to it.
    """
    with suppress(RecursionError):  # no text has a value that is nested so deeply
        for secret in _values(value, is_secret=any(is_secret_member(str(name)) for name in path)):
            # Only between quotes is a word of two letters more likely a secret than a word of the text.
            is_word = isinstance(secret, str) and len(secret) < _SHORTEST
            for shown in [repr(secret), *([] if is_word else [str(secret)])]:
                if shown.strip():
                    text = re.sub(rf"(?<!\w){re.escape(shown)}(?!\w)", HIDDEN, text)
    return text


def _values(value: object, *, is_secret: bool) -> Iterator[object]:
    """Yield the secrets in a value: what is under the name of one, at any depth."""
    if is_mapping(value):
        for name, each in value.items():
            yield from _values(each, is_secret=is_secret or is_secret_member(str(name)))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in cast("Collection[object]", value):
            yield from _values(each, is_secret=is_secret)
    elif is_secret and value is not None:
        yield value


def holds_credentials(host: str) -> bool:
    """Whether an address contains more than a host, a port and a path: a token, a user, or a query."""
    return TOKEN_PREFIX in host or any(character in host for character in "@?#")


def holds_secret(value: object, name: str = "") -> bool:
    """Whether a value must not be shown: its name is that of a secret, or it contains something like a token.

    What a text says beside the names of secrets is not searched: the prompt of an agent may advise on them.

    Args:
        value: The value. One that hides itself, such as a `SecretStr`, may be shown.
        name: The name of the setting.
    """
    secret = is_secret_name(name)
    if value is None or isinstance(value, int | float):
        return secret and value is not None
    try:
        if is_mapping(value):
            return any(
                holds_secret(key) or holds_secret(each, name if secret else str(key)) for key, each in value.items()
            )
        if isinstance(value, list | tuple | set | frozenset):
            return any(holds_secret(each, name) for each in cast("Collection[object]", value))
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - it is nested too deeply to be searched, or cannot be shown at all
        return True
    if secret:
        return HIDDEN not in text
    # A password may contain what ends it elsewhere, such as a slash.
    is_address = isinstance(value, str) and re.search(_IN_ADDRESS_NAME, name.lower())
    return (bool(is_address) and holds_credentials(text)) or redact(text) != text


def redacted_url(url: str) -> str:
    """Return a URL without its possible secrets: user name, password, query and fragment.

    A URL that cannot be parsed is reduced to its scheme.
    """
    scheme = url.partition(":")[0].lower()
    try:
        parts = urlsplit(url)
        host, port, path = parts.hostname, parts.port, parts.path
    except ValueError:
        host, port, path = None, None, ""
    if not host:
        return f"{scheme}:…" if scheme.isalnum() and len(scheme) < len(url) else "…"
    netloc = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{netloc}{'' if port is None else f':{port}'}{path}"
    printable = "".join(character if character.isprintable() else "�" for character in shown)
    return printable if len(printable) <= _LONGEST_URL else f"{printable[:_LONGEST_URL]}…"


def without_secrets(error: ErrorT) -> ErrorT:
    """Return pydantic's error without secret inputs; the error itself if there are none, or if it is another one.

    Raise it outside the `except` block, or `from None` inside a validator: an exception keeps its context.
    """
    if not isinstance(error, ValidationError):
        return error
    problems = error.errors(include_url=False)
    secret = [
        any(holds_secret(each["input"], str(part)) for part in each["loc"] or [""]) or _shows_secret(each["input"])
        for each in problems
    ]
    if not any(secret):
        return error
    hidden = ValidationError.from_exception_data(
        error.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(
                    each["type"],  # pyright: ignore[reportArgumentType]
                    redact(redact_values(each["msg"], each["input"], each["loc"])),  # pyright: ignore[reportArgumentType]
                ),
                loc=each["loc"],
                input=HIDDEN if hide else each["input"],
            )
            for each, hide in zip(problems, secret, strict=True)
        ],
    )
    return cast("ErrorT", hidden)


def _shows_secret(value: object) -> bool:
    """Whether an input of pydantic is the text of a model that has a secret, or an object that is shown with one."""
    with suppress(ValueError):  # a number has too many digits to be shown
        shown = repr(value)
        return redact_members(shown) != shown
    return False


class _RedactingLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of the `websockets` library without debug records, which contain API tokens and all headers."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level > logging.DEBUG and super().isEnabledFor(level)


client_logger = _RedactingLogger(logging.getLogger("websockets.client"))
server_logger = _RedactingLogger(logging.getLogger("websockets.server"))
