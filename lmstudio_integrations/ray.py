"""LM Studio in Ray Data: callable classes for `map_batches` that embed, generate or rerank, on one host or on many.

Retries of tasks, checkpoints, formats and scheduling are Ray's. The classes take and yield Arrow tables, so that the
types of their columns do not depend on the rows. Needs the extra `ray`; Ray itself is not imported here.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from string import Formatter
from typing import Any, Literal, TypedDict, get_args

from pydantic_core import from_json
from typing_extensions import Unpack

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.secrets import is_secret_name
from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.client.api.asynchronous import AsyncClient, AsyncEmbeddingModel, AsyncLLM
from lmstudio_integrations.client.api.base import ModelParameters, handle_on_hosts, hosts_of_model, model_of
from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.client.embeddings import EmbeddingRequest, LengthPolicy
from lmstudio_integrations.client.predictions.plan import History, PredictionSettings
from lmstudio_integrations.client.support.arguments import text_of
from lmstudio_integrations.client.transport.connect.addresses import hosts_of
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.config_dicts import TimeoutParameters
from lmstudio_integrations.types.structured import ResponseFormat, read_response, schema_problems, with_format

try:
    from anyio import CapacityLimiter

    pa: Any = import_module("pyarrow")  # it has no types
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        f"lmstudio_integrations.ray needs {_missing.name}; run: {install_command('ray')}", name=_missing.name
    ) from None

__all__ = ["Embedder", "Generator", "Reranker"]

Row = Mapping[str, Any]
OnError = Literal["raise", "column"]

_OF_EVERY_ROW = (
    LMStudioAuthenticationError,
    LMStudioConfigMismatchError,
    LMStudioModelNotFoundError,
    LMStudioUnsupportedError,
    LMStudioWrongModelKindError,
)
"""Errors that each row would have. They end the job even if `on_error` is `column`."""


class ActorArguments(TypedDict, total=False):
    """The keyword arguments that all classes share.

    Attributes:
        hosts: The hosts that share the rows, each as `host:port` or a URL. If unset, each actor uses `LMSTUDIO_HOST` of
            its node, else LM Studio on that node. The API token is read from `LM_API_TOKEN` in the environment of the
            actor, and is only for the hosts in `LMSTUDIO_HOST` there, if that is set. It is not an argument, because
            Ray stores and shows arguments.
        load: How the model is found or loaded, as in `client.llm.model`; see `ModelParameters`. The default of
            `load_policy` is `explicit` for embeddings and rerankers.
        timeouts: The timeouts of the calls, such as `{"first_token_timeout": 60}`; see `TimeoutParameters`.
        max_retries: How often to retry a call after a failed connection. The default is 2.
        on_error: What happens if a row fails. `raise`, the default, fails the task. `column` puts the error into the
            column `…_error`, leaves the other new columns of the row null, and goes on. Errors that every row would
            have, such as an unknown model, are raised in any case.
    """

    hosts: Sequence[str] | None
    load: ModelParameters
    timeouts: TimeoutParameters
    max_retries: int
    on_error: OnError


class _Actor:
    """A model on its hosts, and the columns that it adds to batches.

    Ray calls an actor with several batches at once, all on one event loop. Their rows share the slots of the hosts, so
    that a slot that becomes free takes the next row of any batch.
    """

    def __init__(self, output_column: str, **arguments: Unpack[ActorArguments]) -> None:
        for name in arguments.keys() - ActorArguments.__annotations__.keys():
            remedy = f"there are {', '.join(ActorArguments.__annotations__)}"
            if is_secret_name(name):
                remedy = f"the token comes from the environment of the actors, {TOKEN_VARIABLES[0]}"
            raise LMStudioValueError(f"unknown argument {name!r}; {remedy}")
        self._output_column = text_of(output_column, "output_column")
        self._on_error = arguments.get("on_error", "raise")
        if self._on_error not in get_args(OnError):
            raise LMStudioValueError(f"on_error must be 'raise' or 'column'; got {self._on_error!r}")
        timeouts = arguments.get("timeouts", {})
        self._clients = [AsyncClient(host).with_timeouts(**timeouts) for host in hosts_of(arguments.get("hosts"))]
        self._max_retries = arguments.get("max_retries", 2)
        self._slots = CapacityLimiter(1)

    def _column(self, suffix: str) -> str:
        """Return the name of a column beside the output."""
        return f"{self._output_column}_{suffix}"

    async def _with_columns(
        self,
        batch: Any,
        columns: Sequence[str],
        values_of: Callable[[list[Row]], Awaitable[list[Row]]],
        types: Mapping[str, Any],
    ) -> Any:
        """Return a batch with new columns.

        Args:
            batch: The batch.
            columns: Those that a row needs.
            values_of: Returns the new values of rows.
            types: The Arrow types of the new columns.

        Raises:
            LMStudioValueError: If it is no Arrow table, or its columns are wrong.
        """
        if not isinstance(batch, pa.Table):
            raise LMStudioValueError(
                f"a batch must be a pyarrow.Table; pass batch_format='pyarrow' to map_batches; got {type(batch)}"
            )
        names = batch.column_names
        if batch.num_rows and (lacking := [name for name in columns if name not in names]):
            raise LMStudioValueError(f"the dataset has no column {lacking[0]!r}; it has {', '.join(map(repr, names))}")
        if self._on_error == "column":
            types = {**types, self._column("error"): pa.string()}
        if taken := [name for name in types if name in names]:
            raise LMStudioValueError(f"the dataset has a column {taken[0]!r} already; set output_column")
        values = await values_of(batch.select(columns).to_pylist()) if batch.num_rows else []
        for name, kind in types.items():
            batch = batch.append_column(name, pa.array([each.get(name) for each in values], type=kind))
        return batch

    async def _each(
        self, handle: AsyncLLM | AsyncEmbeddingModel, call: Callable[[Row], Awaitable[Row]], rows: list[Row]
    ) -> list[Row]:
        """Return the new values of each row.

        Raises:
            LMStudioError: The first error of a row, if that is raised; the other calls are cancelled.
        """
        await self._read_slots(handle)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._caught(call, row)) for row in rows]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _read_slots(self, handle: AsyncLLM | AsyncEmbeddingModel) -> None:
        """Let as many calls run at once as the hosts run, as far as that is known; a model may not be loaded yet."""
        try:
            hosts = hosts_of_model(model_of(handle))
            await arun(hosts.probe(of_all=True))
        except (LMStudioError, ImportError):
            return  # the calls themselves will report what is wrong
        parallel = hosts.parallel
        self._slots.total_tokens = math.inf if parallel is None else max(parallel, 1)

    async def _caught(self, call: Callable[[Row], Awaitable[Row]], row: Row) -> Row:
        """Return the new values of a row; its error in their place, if errors are a column."""
        async with self._slots:
            try:
                return await call(row)
            except LMStudioError as error:
                self._reraise(error)
                return {self._column("error"): f"{type(error).__name__}: {error}"}

    def _reraise(self, error: LMStudioError) -> None:
        """Raise an error that is to be no column."""
        if self._on_error == "raise" or isinstance(error, _OF_EVERY_ROW):
            raise error


class Embedder(_Actor):
    """Embeds a column of texts, for `map_batches` with `batch_format="pyarrow"`.

    The new columns are the vector (32-bit floats), and `…_error` if `on_error` is `column`.

    Args:
        model: The key or identifier of the model.
        text: The column with the texts.
        output_column: The name of the new column.
        dimensions: The length of the vectors. If set, the column is a fixed-size list, which vector databases such as
            LanceDB can index; otherwise it is a list.
        length_policy: What to do with a text that is too long for the model. `error`, the default, raises, `truncate`
            embeds its beginning, `average` embeds its parts and averages their vectors, and `pass` leaves it to the
            server.
        prefix: Text to put before each text, and before each part of a long one, as the model card says. Empty by
            default.
        arguments: See `ActorArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        *,
        text: str = "text",
        output_column: str = "embeddings",
        dimensions: int | None = None,
        length_policy: LengthPolicy = "error",
        prefix: str = "",
        **arguments: Unpack[ActorArguments],
    ) -> None:
        super().__init__(output_column, **arguments)
        if length_policy not in get_args(LengthPolicy):
            known = ", ".join(map(repr, get_args(LengthPolicy)))
            raise LMStudioValueError(f"length_policy must be one of {known}; got {length_policy!r}")
        if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
            raise LMStudioValueError(f"dimensions must be at least 1, or None; got {dimensions!r}")
        load: ModelParameters = {"load_policy": "explicit", **arguments.get("load", {})}
        handles = [client.embedding.lazy_model(text_of(model, "model"), **load) for client in self._clients]
        self._model = handle_on_hosts(handles, self._max_retries)
        self._text, self._dimensions, self._prefix = text, dimensions, prefix
        self._length_policy: LengthPolicy = length_policy

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the vectors."""
        types = {self._output_column: pa.list_(pa.float32(), self._dimensions or -1)}
        yield await self._with_columns(batch, [self._text], self._embed_all, types)

    async def _embed_all(self, rows: list[Row]) -> list[Row]:
        """Embed texts together. If one of them cannot be embedded, embed each alone, to know which."""
        try:
            return await self._embed(rows)
        except LMStudioError as error:
            self._reraise(error)
            return await self._each(self._model, self._embed_one, rows)

    async def _embed_one(self, row: Row) -> Row:
        return (await self._embed([row]))[0]

    async def _embed(self, rows: list[Row]) -> list[Row]:
        texts = [_text_in(row[self._text], self._text) for row in rows]
        request = EmbeddingRequest(texts, self._length_policy, "the length of the texts", self._prefix)
        vectors = await arun(model_of(self._model).vectors_of_long(request))
        if self._dimensions not in {None, len(vectors[0])}:
            raise LMStudioValueError(
                f"the model makes vectors of length {len(vectors[0])}; set dimensions={len(vectors[0])}"
            )
        return [{self._output_column: vector} for vector in vectors]


class Generator(_Actor):
    """Generates a text for each row, for `map_batches` with `batch_format="pyarrow"`.

    The new columns are the text, `…_prompt_tokens`, `…_completion_tokens`, `…_host`, and `…_error` if `on_error` is
    `column`.

    Args:
        model: The key or identifier of the model.
        prompt: A template with names of columns, such as `Summarize: {body}`, or a function that takes a row as a dict
            and returns what `respond` takes: a text, a `Chat`, or a list of messages.
        columns: The columns that the function reads. The default is all.
        schema: The format of the response: a pydantic class, a JSON schema, or a grammar. A response that does not fit
            is an error; one that fits is JSON text.
        config: Prediction settings, such as `{"temperature": 0, "max_tokens": 100}`.
        output_column: The name of the column with the text. The names of the other new columns begin with it.
        arguments: See `ActorArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        *,
        prompt: str | Callable[[Row], History],
        columns: Sequence[str] | None = None,
        schema: ResponseFormat | None = None,
        config: PredictionSettings | None = None,
        output_column: str = "generated_text",
        **arguments: Unpack[ActorArguments],
    ) -> None:
        super().__init__(output_column, **arguments)
        handles = [
            client.llm.lazy_model(text_of(model, "model"), **arguments.get("load", {})) for client in self._clients
        ]
        self._model = handle_on_hosts(handles, self._max_retries)
        self._prompt, self._columns = prompt, columns
        if not callable(prompt):
            self._columns = _columns_of(prompt)
        self._settings = with_format(schema, LlmPredictionConfig.parse(config), check=True)

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the responses."""
        text, number = pa.string(), pa.int64()
        types = {self._output_column: text, self._column("prompt_tokens"): number}
        types |= {self._column("completion_tokens"): number, self._column("host"): text}
        columns = getattr(batch, "column_names", []) if self._columns is None else self._columns
        yield await self._with_columns(batch, columns, partial(self._each, self._model, self._generate), types)

    async def _generate(self, row: Row) -> Row:
        if callable(self._prompt):
            prompt = self._prompt(row)
        else:
            lacking = [name for name in self._columns or () if row[name] is None]
            if lacking:
                raise LMStudioValueError(f"column {lacking[0]!r} is null")
            prompt = self._prompt.format_map(row)
        result = await self._model.respond(prompt, config=self._settings, check_response=False)
        read_response(self._check, result.content, result.end.stop_reason, result.reasoning_content)
        return {
            self._output_column: result.content,
            self._column("prompt_tokens"): result.stats.prompt_tokens_count,
            self._column("completion_tokens"): result.stats.predicted_tokens_count,
            self._column("host"): result.end.host,
        }

    def _check(self, text: str) -> None:
        schema = (self._settings.structured or {}).get("jsonSchema")
        if schema is not None and (problems := schema_problems(schema, from_json(text))):
            raise ValueError(problems)


class Reranker(_Actor):
    """Scores the texts of each row by their relevance to its query, for `map_batches` with `batch_format="pyarrow"`.

    The new columns are the scores from 0 to 1, in the order of the texts, null where the model would say neither yes
    nor no, and `…_error` if `on_error` is `column`.

    Args:
        model: The key or identifier of the model.
        query: The column with the queries.
        texts: The column with lists of texts.
        instruction: What relevant means, as a sentence. By default, that of the template.
        template: The prompt, as a `RerankTemplate` or as its `prompt` alone; see `RerankParameters`.
        output_column: The name of the new column.
        arguments: See `ActorArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        *,
        query: str = "query",
        texts: str = "texts",
        instruction: str | None = None,
        template: "lms.RerankTemplate | str | None" = None,
        output_column: str = "scores",
        **arguments: Unpack[ActorArguments],
    ) -> None:
        super().__init__(output_column, **arguments)
        load: ModelParameters = {"load_policy": "explicit", **arguments.get("load", {})}
        handles = [client.llm.lazy_model(text_of(model, "model"), **load) for client in self._clients]
        self._model = handle_on_hosts(handles, self._max_retries)
        self._query, self._texts = query, texts
        self._parameters: lms.RerankParameters = {"instruction": instruction, "template": template}
        with door("decisions and rerankers"):
            from lmstudio_integrations.client.predictions.decisions.reranking import Reranking  # noqa: PLC0415 - a leaf
        Reranking(model_of(self._model), "query", [], self._parameters)  # only made to check the parameters

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the scores."""
        types = {self._output_column: pa.list_(pa.float64())}
        columns = [self._query, self._texts]
        yield await self._with_columns(batch, columns, partial(self._each, self._model, self._rerank), types)

    async def _rerank(self, row: Row) -> Row:
        texts = row[self._texts]
        if not is_list(texts):
            raise LMStudioValueError(f"column {self._texts!r} must be a list of strings; got {type(texts).__name__}")
        query = _text_in(row[self._query], self._query)
        results = await self._model.rerank(query, texts, **self._parameters)
        scores = {result.index: result.score for result in results}
        return {self._output_column: [scores[index] for index in range(len(texts))]}


def _text_in(value: object, column: str) -> str:
    if not isinstance(value, str):
        raise LMStudioValueError(f"column {column!r} must be a string; got {type(value).__name__}")
    return value


def _columns_of(template: str) -> list[str]:
    """Return the columns that a template names.

    Raises:
        LMStudioValueError: If it is no template, or names none.
    """
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except (TypeError, ValueError) as error:
        raise LMStudioValueError(f"prompt {template!r} is no template: {error}; write {{{{ for a brace") from error
    if not names or not all(name.isidentifier() for name in names):
        raise LMStudioValueError("prompt must name columns in braces, such as {body}; write {{ for a brace")
    return list(dict.fromkeys(names))
