"""Structured output in several attempts: the model is asked to correct a response that does not fit."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lmstudio_integrations.errors import LMStudioError, LMStudioStructuredOutputError
from lmstudio_integrations.types.structured import correction

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
ValueT = TypeVar("ValueT")


@dataclass(slots=True)
class Attempts(Generic[RequestT, ResponseT, ValueT]):
    """The responses of a model to a request, and to those that ask it to correct the one before."""

    request: RequestT | None
    """The next request; `None` if there is none."""

    max_attempts: int

    read: Callable[[ResponseT], ValueT]
    """Returns the value of a response, or raises an `LMStudioStructuredOutputError` that says what is wrong with it."""

    with_correction: Callable[[RequestT, str, str], RequestT]
    """Returns a request with the text that was rejected, which may be empty, and with what to do about it."""

    responses: list[ResponseT] = field(default_factory=list[ResponseT])

    value: ValueT | None = None
    """The value of the last response."""

    rejection: LMStudioStructuredOutputError | None = None
    """What is wrong with the last response."""

    failure: LMStudioError | None = None
    """Why there is no other response."""

    @contextmanager
    def correcting(self) -> Generator[None]:
        """End the attempts where the request for a correction fails: there is a response already."""
        try:
            yield
        except LMStudioError as error:
            if self.rejection is None:
                raise
            self.failure, self.request = error, None

    def add(self, response: ResponseT) -> None:
        """Add the response to the request, on which another one follows if it is rejected."""
        request, self.request, self.rejection = self.request, None, None
        assert request is not None, "it is the response to it"
        self.responses.append(response)
        try:
            self.value = self.read(response)
        except LMStudioStructuredOutputError as error:
            self.rejection = error
            if len(self.responses) < self.max_attempts:
                self.request = self.with_correction(request, error.text or "", correction(error))
