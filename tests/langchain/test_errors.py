"""Errors are instances of our classes and of langchain-core's."""

import pickle

import pytest
from langchain_core import exceptions as core

from lmstudio_integrations import errors
from lmstudio_integrations.langchain._errors import LangChainStructuredOutputError, both, translated


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (errors.LMStudioContextOverflowError("x", used=9, limit=4), core.ContextOverflowError, False),
        (errors.LMStudioModelNotFoundError("x"), core.ModelNotFoundError, False),
        (errors.LMStudioAuthenticationError("x"), core.ModelAuthenticationError, False),
        (errors.LMStudioUnreachableError("x", tried=("a",)), core.ModelConnectionError, True),
        (errors.LMStudioConnectionLostError("x"), core.ModelConnectionError, True),
        (errors.LMStudioTimeoutError("x", timeout_name="timeout", elapsed=1.0), core.ModelTimeoutError, True),
        (errors.LMStudioValueError("x"), core.ModelInvalidRequestError, False),
        (errors.LMStudioWrongModelKindError("x"), core.ModelInvalidRequestError, False),
        (errors.LMStudioModelUnloadedError("x"), core.ModelAPIError, True),
        (errors.LMStudioServerError("x", cause="c"), core.ModelAPIError, True),
        (errors.LMStudioChannelClosedError("x"), core.ModelAPIError, True),
        (errors.LMStudioToolCallError("x", raw_content="r"), core.ModelError, False),
        (errors.LMStudioInsufficientResourcesError("x"), core.ModelError, False),
        (errors.LMStudioRuntimeError("x"), core.ModelError, False),
        (errors.LMStudioClientClosedError("x"), core.ModelError, False),
        (errors.LMStudioError("x"), core.ModelError, False),
    ],
)
def test_an_error_has_both_bases_its_attributes_and_knows_whether_a_retry_helps(
    error: errors.LMStudioError, kind: type[core.ModelError], retryable: bool
) -> None:
    translation = both(error)
    assert isinstance(translation, kind)
    assert isinstance(translation, errors.LMStudioError)
    assert any(base in type(translation).__mro__ for base in type(error).__mro__[:2])
    assert translation.is_retryable is retryable
    assert str(translation) == "x"
    assert vars(translation) == vars(error)
    again = pickle.loads(pickle.dumps(translation))
    assert type(again) is type(translation)
    assert vars(again) == vars(error)


def test_the_most_exact_class_is_chosen() -> None:
    assert isinstance(both(errors.LMStudioToolCallError("x")), errors.LMStudioToolCallError)
    assert isinstance(both(errors.LMStudioModelCrashedError("x")), errors.LMStudioModelCrashedError)
    assert isinstance(both(errors.LMStudioTimeoutError("x")), TimeoutError)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.LMStudioError) and not issubclass(kind, Warning)
    ],
)
def test_no_error_loses_its_class(kind: type[errors.LMStudioError]) -> None:
    assert isinstance(both(kind("x")), kind)


def test_the_block_translates_once_and_keeps_the_original_as_cause() -> None:
    original = errors.LMStudioUnreachableError("nobody there")
    with pytest.raises(core.ModelConnectionError) as caught, translated(), translated():
        raise original
    assert caught.value.__cause__ is original


def test_other_exceptions_pass_through() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("x")


def test_a_structured_output_error_is_an_output_parser_exception_with_the_response() -> None:
    error = LangChainStructuredOutputError("not JSON", text="{")
    assert isinstance(error, core.OutputParserException)
    assert isinstance(error, ValueError)
    assert error.llm_output == error.text == "{"
    again = pickle.loads(pickle.dumps(error))
    assert again.llm_output == "{"
