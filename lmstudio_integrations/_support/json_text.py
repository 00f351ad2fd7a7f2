"""Writes values as JSON text. All JSON that may have texts of users, tools or models is written here.

Python's strings may hold half of a surrogate pair, and a text that was cut between the two often does. UTF-8 cannot
represent it, so pydantic-core rejects it; JSON can, as an escape.
"""

import json
import re
from typing import Any

from pydantic_core import to_json, to_jsonable_python  # noqa: TID251 - with what it rejects below

_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> str:
    """Return a value as JSON text. Lone surrogates are escaped; infinity and NaN become null.

    Raises:
        ValueError: If it, or something in it, cannot be written as JSON.
        TypeError: If a name is not a string, in a value with lone surrogates.
        RecursionError: If it is nested too deeply, with lone surrogates.
    """
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except ValueError:  # a lone surrogate
        pass
    # `json.dumps` cannot write infinity as null. A round trip replaces it.
    finite = json.loads(json.dumps(value, default=to_jsonable_python), parse_constant=lambda _: None)
    written = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", written)
