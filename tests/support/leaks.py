"""What an exception shows of a secret, anywhere in its chain."""

import traceback
from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

TOKEN = "sk-lm-KqWzHmPx:RtYbNhGvXsLkJwQzMnPy"
"""No six characters of it occur in a number, a UUID or a word."""

PASSWORD = "hunter2"
"""What no text shows under the name of a secret."""

ASSIGNED = (
    "password = hunter2",
    "x password=hunter2",
    "API_KEY=hunter2 python x.py",
    "Run API_KEY=hunter2 make",
    'export TOKEN="hunter2 hunter2"',
    "mysql --password hunter2 --user me",
    "mysql --password=hunter2 -u me",
    "Server=db;Password=hunter2;User=me",
    "Server=db;Password=hunter2;",
    "https://host/callback#access_token=hunter2&state=1",
    "https://host/callback?state=1&pwd=hunter2",
    "connect(password=hunter2)",
    "connect('db', password=hunter2, user='me')",
    "connect('db', auth=('me', 'hunter2'))",
    "request(headers={'X-Key': 'hunter2'})",
    "password: str = 'hunter2'",
    'config["password"] = "hunter2"',
    "db:\n  user: me\n  password: hunter2",
    "{user: me, password: hunter2}",
    'GET / HTTP/1.1\r\nX-Api-Key: hunter2\r\nCookie: a="hunter2"; b=hunter2\r\n',
    "curl -H 'Authorization: Digest hunter2 hunter2' https://host",
    "The API key: hunter2. It's secret.",
    "**Password:** hunter2, **user:** me",
    "a password: `hunter2`",
    "a passphrase => hunter2",
    "a password: hunter2,hunter2;hunter2&hunter2",
    '"user=me\\npwd=hunter2"',
    '{"text": "password=hunter2", "user": "me"}',
    "<p>Password: hunter2</p>",
    "<secret>hunter2</secret>",
    "password:\nhunter2\n",
    "password: |\n  hunter2\n  hunter2\nuser: me",
    "db:\n  secret: >-\n    hunter2\n  user: me",
    "headers:\n  X-Own: hunter2\n  X-Other: hunter2\nuser: me",
    "**API key:**\n```\nhunter2\n```",
    "password:\u00a0hunter2",
    "password\uff1ahunter2",
    "api_key: Bearer hunter2",
    '<password type="plain">hunter2</password>',
    "<password><![CDATA[hunter2]]></password>",
    '<property name="password">hunter2</property>',
    '<add key="password" value="hunter2"/>',
    "env:\n- name: DB_PASSWORD\n  value: hunter2\n",
    'Use {"value": "hunter2", "name": "DB_PASSWORD"} now',
    'Use {"name": "my password", "of": {"n": 1}, "value": "hunter2"} now',
    'Type {"field": "password", "text": "hunter2"} there',
    '{"pass\\u0077ord": "hunter2"',
    'os.environ.get("API_KEY", "hunter2")',
    "headers.append(('Authorization', 'hunter2'))",
    'Send [["X-Api-Key", "hunter2"]] there',
    'Run ["mysql", "--password", "hunter2", "-v"] there',
    "postgres://u:p/hunter2@h",
    "['password' => 'hunter2']",
    '"password" = "hunter2"',
    "password=hunter2(hunter2",
    "env:\n- value: hunter2\n  name: DB_PASSWORD\n",
    'Use {"name": "password", "meta": {"a": {"b": 1}}, "value": "hunter2"} now',
    'Use {"password": ["]", "hunter2"]} now',
)
"""Texts that give a secret its value: the name and its value, in each form that the page on cassettes lists."""


def shows_token(text: str) -> bool:
    """Whether six characters in a row of either half of the token are in a text; pydantic shows ends of values."""
    return any(TOKEN[start : start + 6] in text for start in range(6, len(TOKEN) - 5))


def error_of(call: Callable[[], object]) -> ValueError | TypeError:
    """Return the error of a call that must fail."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return error
    pytest.fail("it was accepted")


def shown_by(error: BaseException, *, with_attributes: bool = True) -> str:
    """Return everything that a log or a person may see of an exception.

    Args:
        error: The exception.
        with_attributes: Whether they may see its attributes, of which some are what the model wrote.
    """
    return "\n".join(_shown(error, set(), with_attributes=with_attributes))


def _shown(error: BaseException, seen: set[int], *, with_attributes: bool) -> Iterator[str]:
    if id(error) in seen:
        return
    seen.add(id(error))
    yield f"{error} {error!r} {error.args!r} {''.join(traceback.format_exception(error))}"
    if with_attributes:
        yield repr(vars(error))
    if isinstance(error, ValidationError):
        yield f"{error.errors()!r} {error.json()}"
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from _shown(other, seen, with_attributes=with_attributes)
