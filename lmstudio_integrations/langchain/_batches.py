"""Batches: how many calls run at once, and threads for them that Ctrl-C and the like stop on the server as well.

Core's own wait until their running calls end before they raise `KeyboardInterrupt`. The classes that make calls have
`batch` and `batch_as_completed` as methods, or call them with a limit.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list, get_executor_for_config

from lmstudio_integrations._adapters.request_model import Calling, UsedModel
from lmstudio_integrations.client.concurrency.cancel_scope import CancelScope
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.types.config import LlmLoadModelConfig, slots_of
from lmstudio_integrations.types.results import settings_by_key


def concurrency(used: UsedModel, calling: Calling, values: Mapping[str, Any]) -> int | None:
    """Return how many predictions the model of a call runs at once: as reported, as configured, or the default.

    `None` if only its engine knows it.
    """
    if len(used.states) > 1:
        return used.hosts(calling, ThreadMailbox).parallel
    instance, config = used.states[0].instance, values["load_config"]
    configured = config.set_fields() if isinstance(config, LlmLoadModelConfig) else {}
    return slots_of("llm", {**configured, **(settings_by_key(instance.load_config) if instance else {})})


@contextmanager
def interruptible_executor(config: RunnableConfig) -> Generator[tuple[Executor, Context]]:
    """Make an executor of core's, and the context in which calls are submitted to it.

    Ctrl-C and the like in the block end the calls that run; other errors do not.
    """
    scope = CancelScope("the batch that it belongs to")
    try:
        with get_executor_for_config(config) as executor:
            try:
                yield executor, scope.context()
            except Exception:
                raise
            except BaseException:
                scope.cancel()
                raise
    finally:
        scope.end()


def batch(
    runnable: Runnable[Any, Any],
    /,
    inputs: Sequence[Any],
    config: Any = None,
    *,
    return_exceptions: bool = False,
    **kwargs: Any,
) -> list[Any]:
    """Return the response to each input; see `Runnable.batch`."""
    if not inputs:
        return []
    call = partial(_call, runnable, kwargs, return_exceptions=return_exceptions)
    configs = get_config_list(config, len(inputs))
    if len(inputs) == 1:  # not in a thread
        return [call(inputs[0], configs[0])]
    with interruptible_executor(configs[0]) as (executor, context):
        return list(context.run(executor.map, call, inputs, configs))


def batch_as_completed(
    runnable: Runnable[Any, Any],
    /,
    inputs: Sequence[Any],
    config: Any = None,
    *,
    return_exceptions: bool = False,
    **kwargs: Any,
) -> Iterator[tuple[int, Any]]:
    """Yield the index and the response of each input, as they finish; see `Runnable.batch_as_completed`.

    If the iteration ends early, so do the calls that still run.
    """
    if not inputs:
        return
    call = partial(_call, runnable, kwargs, return_exceptions=return_exceptions)
    configs = get_config_list(config, len(inputs))
    if len(inputs) == 1:
        yield 0, call(inputs[0], configs[0])
        return
    with interruptible_executor(configs[0]) as (executor, context):
        calls = enumerate(partial(call, *each) for each in zip(inputs, configs, strict=True))
        indices = {context.run(executor.submit, each): index for index, each in calls}
        try:
            for future in as_completed(indices):
                yield indices[future], future.result()
        finally:
            for future in indices:
                future.cancel()


def _call(
    runnable: Runnable[Any, Any], kwargs: Mapping[str, Any], given: Any, config: Any, *, return_exceptions: bool
) -> Any:
    try:
        return runnable.invoke(given, config, **kwargs)
    except Exception as error:
        if return_exceptions:
            return error
        raise
