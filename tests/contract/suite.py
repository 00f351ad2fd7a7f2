"""What the conformance suites share: a registry of checks, and what the checks of every framework use.

A check gets an integration, which creates models on a scripted server. It raises if it fails. The same checks run on
this package and, by `python -m tests.contract.comparison`, on those of others.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from tests.support.requested import Requested

NUMBERS = "0 1 2 3 4 5 6 7 8 9"
"""The response to `count`."""

SECRET = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
"""An API key in the form that LM Studio requires."""

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63fccfc0500f000485018084a98c21"
    "0000000049454e44ae426082"
)

PASSED, FAILED, MISSING = "✔", "✗", "-"
"""The results of a check."""

_TIMEOUT = 20.0

IntegrationT = TypeVar("IntegrationT")


class UnsupportedError(Exception):
    """The integration does not have this feature at all."""


class Suite(Generic[IntegrationT]):
    """The checks of one framework, by their requirements."""

    def __init__(self) -> None:
        self.checks: dict[str, Callable[[IntegrationT], Awaitable[None] | None]] = {}

    def check(self, requirement: str) -> Callable[[Callable[[IntegrationT], Any]], Callable[[IntegrationT], Any]]:
        """Register a check."""

        def add(check: Callable[[IntegrationT], Any]) -> Callable[[IntegrationT], Any]:
            assert requirement not in self.checks, f"there are two checks of {requirement!r}"
            self.checks[requirement] = check
            return check

        return add

    def run(self, requirement: str, integration: IntegrationT) -> None:
        """Run a check, sync or async."""
        result = self.checks[requirement](integration)
        if inspect.isawaitable(result):

            async def wait() -> None:
                await asyncio.wait_for(result, _TIMEOUT)

            asyncio.run(wait())

    def outcome(self, requirement: str, integration: IntegrationT) -> tuple[str, str]:
        """Run a check; return the result and the reason."""
        try:
            self.run(requirement, integration)
        except UnsupportedError as error:
            return MISSING, str(error)
        except BaseException as error:  # noqa: BLE001 - peers raise all kinds
            return FAILED, f"{type(error).__name__}: {error}"[:200]
        return PASSED, ""


def error_of(call: Callable[[], Any]) -> Exception:
    """Return the error that a call raises; fail if it raises none."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - peers raise all kinds
        return error
    raise AssertionError("no error was raised")


def texts_of(request: Requested) -> list[tuple[str, str]]:
    """Return the role and text of each message in a request."""
    assert request.history is not None, "the request is a text completion"
    return [
        (message["role"], "".join(part.get("text", "") for part in message["content"]))
        for message in request.history.to_dict()["messages"]
    ]


def written(request: Requested) -> list[str]:
    """Return the assistant messages of a request as the model wrote them: reasoning between its tags, then text.

    Where a protocol has a field for reasoning, the server writes the tags around it. LM Studio's own has none: there,
    clients send text with the tags, as the official SDKs do.
    """
    texts = [text for role, text in texts_of(request) if role == "assistant"]
    fields = request.reasoning or [""] * len(texts)
    return [f"<think>{field}</think>{text}" if field else text for field, text in zip(fields, texts, strict=True)]


def is_structured(request: Requested) -> bool:
    """Return whether a request has a JSON schema."""
    return (request.config.structured or {}).get("type") == "json"
