"""What the actors of all stages share: their model, a batch as calls, errors as a column, columns of results.

`actors.py` subclasses it. Ray calls an actor with several batches at once, all on one event loop. Their rows share the
slots of the hosts, so that a slot that becomes free takes the next row of any batch.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, cast, get_args

from anyio import CapacityLimiter
from typing_extensions import Unpack

from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.secrets import is_secret_name
from lmstudio_integrations._support.suggestions import closest_names, explain_unknown_setting
from lmstudio_integrations.client.support.arguments import text_of
from lmstudio_integrations.client.support.timeouts import checked_timeouts
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.ray._arrow import pyarrow
from lmstudio_integrations.ray._handles import get_capacity, open_async
from lmstudio_integrations.types.config import LoadPolicy, ModelKind, OnConfigMismatch
from lmstudio_integrations.types.config_dicts import TimeoutParameters

OnError: TypeAlias = Literal["raise", "column"]
ResultT = TypeVar("ResultT")
Values: TypeAlias = dict[str, Any]
"""What becomes of a row: values by column; a column that is missing is null."""

JOB_ERRORS = (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioModelNotFoundError,
    LMStudioWrongModelKindError,
)
"""Errors of every row alike. They end the job even if `on_error` is `column`."""


class ModelArguments(TimeoutParameters, total=False):
    """The keyword arguments that all stages share, including the timeouts of `TimeoutParameters`.

    Attributes:
        hosts: The hosts that share the rows, each as `host:port` or a URL. If unset, each actor uses `LMSTUDIO_HOST` of
            its node, else LM Studio on that node. The API token is read from `LM_API_TOKEN` in the environment of the
            actor. It is not an argument, because Ray stores and shows arguments.
        load_policy: How the model is found or loaded: `get_or_load`, the default of `generate`, `explicit`, the default
            of `embed` and `rerank`, or `require_loaded`. See `ModelParameters`.
        load_config: How to load the model, if the job loads it.
        ttl: Unload the model after this many idle seconds, if the job loads it.
        on_config_mismatch: What to do if the loaded model's settings differ from `load_config`: `warn` (the default),
            `raise` or `ignore`.
        max_retries: How often to retry a call after a failed connection. The default is 2.
        on_error: What happens if a row fails. `raise`, the default, ends the job. `column` puts the error into the
            column `…_error`, leaves the other new columns of the row null, and goes on. Errors that every row would
            have, such as an unknown model, always end the job.
    """

    hosts: Sequence[str] | None
    load_policy: LoadPolicy
    load_config: Any
    ttl: float | None
    on_config_mismatch: OnConfigMismatch
    max_retries: int
    on_error: OnError


class Stage(ABC):
    """A model, and the columns that it adds to batches."""

    kind: ClassVar[ModelKind]
    load_policy: ClassVar[LoadPolicy]
    job_errors: ClassVar[tuple[type[LMStudioError], ...]] = JOB_ERRORS

    def __init__(self, model: str, output_column: str, **arguments: Unpack[ModelArguments]) -> None:
        self.model: str = text_of(model, "model")
        self.output_column: str = text_of(output_column, "output_column")
        self.on_error: OnError = _on_error(arguments.get("on_error", "raise"))
        check_known(arguments, ModelArguments.__annotations__, type(self).__name__)
        self._handle = open_async(
            self.kind,
            self.model,
            arguments.get("hosts"),
            max_retries=arguments.get("max_retries", 2),
            timeouts=checked_timeouts(arguments),
            load_policy=arguments.get("load_policy", self.load_policy),
            ttl=arguments.get("ttl"),
            config=arguments.get("load_config"),
            on_config_mismatch=arguments.get("on_config_mismatch", "warn"),
        )
        self._slots = CapacityLimiter(1)
        self._knows_capacity = False

    @property
    @abstractmethod
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a batch must have."""

    @abstractmethod
    def output_types(self) -> dict[str, Any]:
        """Return the Arrow types of the columns that it adds, without that of errors."""

    def types(self) -> dict[str, Any]:
        """Return the Arrow types of all columns that it adds."""
        errors = {self.column_name("error"): pyarrow().string()} if self.on_error == "column" else {}
        return self.output_types() | errors

    def column_name(self, suffix: str) -> str:
        """Return the name of a column beside the output."""
        return f"{self.output_column}_{suffix}"

    def check(self, columns: Collection[str]) -> None:
        """Check the columns of a batch, or of a whole dataset.

        Raises:
            LMStudioValueError: If one is missing, or has the name of a column that is added.
        """
        for name in self.input_columns:
            check_column(name, columns)
        if taken := [name for name in self.types() if name in columns]:
            raise LMStudioValueError(
                f"the dataset has a column {taken[0]!r} already; set output_column to another name, or drop the column"
            )

    def rows_of(self, batch: Any) -> list[Values]:
        """Return the rows of a batch, with the columns that are needed.

        Raises:
            LMStudioValueError: If it is no Arrow table, or its columns are wrong.
        """
        if not isinstance(batch, pyarrow().Table):
            raise LMStudioValueError(
                f"a batch must be a pyarrow.Table; pass batch_format='pyarrow' to map_batches; got {type(batch)}"
            )
        if batch.num_rows:  # an empty block may lack its columns
            self.check(batch.column_names)
            return cast("list[Values]", batch.select(list(self.input_columns)).to_pylist())
        return []

    def with_columns(self, batch: Any, rows: Sequence[Values]) -> Any:
        """Return a batch with the added columns. Their types do not depend on the rows."""
        for name, kind in self.types().items():
            batch = batch.append_column(name, pyarrow().array([row.get(name) for row in rows], type=kind))
        return batch

    async def run_all(self, jobs: Iterable[Callable[[], Awaitable[ResultT]]]) -> list[ResultT]:
        """Run jobs at once, as many as there are slots. The first error cancels the others and is raised."""
        await self._read_capacity()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._run(job)) for job in jobs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _run(self, job: Callable[[], Awaitable[ResultT]]) -> ResultT:
        async with self._slots:
            result = await job()
        if not self._knows_capacity:  # the model is loaded now
            self._knows_capacity = True
            await self._read_capacity()
        return result

    async def _read_capacity(self) -> None:
        try:
            self._slots.total_tokens = max(await get_capacity(self._handle), 1)
        except LMStudioError:
            return  # the calls themselves will report what is wrong

    async def caught(self, job: Awaitable[Values]) -> Values:
        """Return the values of a row; only its error if it fails and that is not raised.

        Raises:
            LMStudioError: If errors are raised, or every row would have this one.
        """
        try:
            return await job
        except LMStudioError as error:
            return self.values_of(error)

    def values_of(self, error: LMStudioError) -> Values:
        """Return the values of a row that failed.

        Raises:
            LMStudioError: The error, if errors are raised, or every row would have this one.
        """
        if self.on_error == "raise" or isinstance(error, self.job_errors):
            raise error
        return {self.column_name("error"): f"{type(error).__name__}: {error}"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r})"


def _on_error(value: object) -> OnError:
    if value not in get_args(OnError):
        raise LMStudioValueError(f"on_error must be 'raise' or 'column'; got {value!r}")
    return cast("OnError", value)


def check_column(name: str, columns: Collection[str]) -> None:
    """Check that there is a column.

    Raises:
        LMStudioValueError: If there is none of this name; the nearest one is suggested.
    """
    if name not in columns:
        meant = closest_names(name, columns)
        advice = f"did you mean {meant[0]!r}?" if meant else f"it has {', '.join(map(repr, columns))}"
        raise LMStudioValueError(f"the dataset has no column {name!r}; {advice}")


def check_known(arguments: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    """Reject unknown arguments.

    Raises:
        LMStudioValueError: If there is one; the nearest known one is suggested.
    """
    for name in arguments:
        if name not in known:
            remedy = (
                f"the token comes from the environment of the actors, {TOKEN_VARIABLES[0]}"
                if is_secret_name(name)
                else explain_unknown_setting(name, known, arguments, owner)
            )
            raise LMStudioValueError(f"unknown setting {name!r}; {remedy}")
