"""What the actors of Ray Data run: callable classes for `map_batches`, with `batch_format="pyarrow"`.

`stages.py` passes them to Ray; they are public for programs that call `map_batches` themselves.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast, get_args

from pydantic import BaseModel
from pydantic_core import from_json
from typing_extensions import Unpack

from lmstudio_integrations.client.api.asynchronous import AsyncEmbeddingModel, AsyncLLM
from lmstudio_integrations.client.embeddings.long_texts import EmbeddingRequest, LengthPolicy
from lmstudio_integrations.client.predictions.requests import PredictionSettings
from lmstudio_integrations.client.predictions.reranking.rerank import Reranking, RerankParameters
from lmstudio_integrations.client.support.arguments import flag_of, text_of
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioServerError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.ray._arrow import Column, columns_of, pyarrow
from lmstudio_integrations.ray._handles import embed_with_host
from lmstudio_integrations.ray._inputs import Template, chat_of, images_of, string_in, strings_in, tools_of, with_images
from lmstudio_integrations.ray._stage import JOB_ERRORS, ModelArguments, Stage, Values
from lmstudio_integrations.types._json_schemas import problem_of, validator_of
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmPredictionConfig, LoadPolicy, ModelKind
from lmstudio_integrations.types.reranking import RerankTemplate
from lmstudio_integrations.types.results import PredictionResult
from lmstudio_integrations.types.structured import ResponseFormat, read_response, with_format
from lmstudio_integrations.types.tools import ToolCallRequest

TEXTS_PER_CALL = 16
"""How many texts one call embeds: enough to hide the way to the host, few enough to share among hosts of all speeds."""

_INFO = ("model", "prompt_tokens", "completion_tokens", "host")
"""What the columns beside a response show."""


class Embedder(Stage):
    """Embeds a column of texts.

    The new columns are the vector (32-bit floats), `…_model`, `…_host`, and `…_error` if `on_error` is `column`.

    Args:
        model: The key or identifier of the model.
        text: The column with the texts.
        output_column: The name of the new column. The names of the others begin with it.
        dimensions: The length of the vectors. If set, the column is a fixed-size list, which vector databases such as
            LanceDB can index; otherwise it is a list.
        length_policy: What to do with a text that is too long for the model. `error`, the default, raises, `truncate`
            embeds its beginning, `average` embeds its parts and averages their vectors, and `pass` leaves it to the
            server.
        prefix: Text to put before each text, and before each part of a long one, as the model card says. Empty by
            default.
        arguments: See `ModelArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    kind: ClassVar[ModelKind] = "embedding"
    load_policy: ClassVar[LoadPolicy] = "explicit"

    def __init__(
        self,
        model: str,
        *,
        text: str = "text",
        output_column: str = "embeddings",
        dimensions: int | None = None,
        length_policy: LengthPolicy = "error",
        prefix: str = "",
        **arguments: Unpack[ModelArguments],
    ) -> None:
        if length_policy not in get_args(LengthPolicy):
            known = ", ".join(map(repr, get_args(LengthPolicy)))
            raise LMStudioValueError(f"length_policy must be one of {known}; got {length_policy!r}")
        if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
            raise LMStudioValueError(f"dimensions must be at least 1, or None; got {dimensions!r}")
        super().__init__(model, output_column, **arguments)
        self._text, self._dimensions = text, dimensions
        self._length_policy: LengthPolicy = length_policy
        self._prefix = prefix if prefix == "" else text_of(prefix, "prefix")

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a batch must have."""
        return (self._text,)

    def output_types(self) -> dict[str, Any]:
        """Return the Arrow types of the columns that it adds, without that of errors."""
        arrow = pyarrow()
        vector = arrow.list_(arrow.float32(), self._dimensions or -1)
        return {
            self.output_column: vector,
            self.column_name("model"): arrow.string(),
            self.column_name("host"): arrow.string(),
        }

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the vectors."""
        values = [row[self._text] for row in self.rows_of(batch)]
        groups = [values[start : start + TEXTS_PER_CALL] for start in range(0, len(values), TEXTS_PER_CALL)]
        results = await self.run_all([partial(self._embed_group, group) for group in groups])
        yield self.with_columns(batch, [row for rows in results for row in rows])

    async def _embed_group(self, values: Sequence[object]) -> list[Values]:
        """Embed texts together. If one of them cannot be embedded, embed each alone, to know which."""
        try:
            return await self._embed(values)
        except LMStudioError as error:
            failed = self.values_of(error)
            if not isinstance(error, LMStudioServerError | LMStudioValueError):
                return [failed] * len(values)  # this error does not depend on the texts
            return [await self.caught(self._embed_one(value)) for value in values]

    async def _embed_one(self, value: object) -> Values:
        (row,) = await self._embed([value])
        return row

    async def _embed(self, values: Sequence[object]) -> list[Values]:
        texts = [string_in(value, self._text) for value in values]
        request = EmbeddingRequest(texts, self._length_policy, "the length of the texts", self._prefix)
        vectors, host = await embed_with_host(cast("AsyncEmbeddingModel", self._handle), request)
        return [self._row(vector, host) for vector in vectors]

    def _row(self, vector: list[float], host: str | None) -> Values:
        if self._dimensions is not None and len(vector) != self._dimensions:
            raise LMStudioValueError(f"the model makes vectors of length {len(vector)}; set dimensions={len(vector)}")
        return {self.output_column: vector, self.column_name("model"): self.model, self.column_name("host"): host}


class Generator(Stage):
    """Generates a text, or the fields of a schema, for each row.

    The new columns are the text or the fields, `…_model`, `…_prompt_tokens`, `…_completion_tokens`, `…_host`,
    `…_tool_calls` if there is a column of tools, and `…_error` if `on_error` is `column`.

    Args:
        model: The key or identifier of the model.
        prompt: A template with names of columns, such as `Summarize: {body}`.
        messages: The column with conversations, instead of `prompt`. Each is a list of messages with `role` and
            `content`, or such a list as JSON text.
        images: A column with images: one or several JPEG, PNG or WebP files or their URLs, which are added to the last
            user message. http and https URLs need `allow_image_download`.
        allow_image_download: Whether the actor may download images from http and https URLs, with the limits of the
            chat adapters. The default is `False`, because the rows choose the URLs.
        allow_private_image_hosts: Whether images may also come from addresses that are not public, such as the local
            network. The default is `False`. Only for rows that you trust.
        tools: A column with the tools that the model may call: a list of OpenAI functions, or such a list as JSON text.
            The calls are not run but added as a column.
        schema: A pydantic class or a JSON schema of an object. Its fields become columns instead of the text.
        config: Prediction settings, such as `{"temperature": 0, "max_tokens": 100}`.
        output_column: The name of the column with the text. The names of the other new columns begin with it.
        arguments: See `ModelArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    kind: ClassVar[ModelKind] = "llm"
    load_policy: ClassVar[LoadPolicy] = "get_or_load"

    def __init__(
        self,
        model: str,
        *,
        prompt: str | None = None,
        messages: str | None = None,
        images: str | None = None,
        allow_image_download: bool = False,
        allow_private_image_hosts: bool = False,
        tools: str | None = None,
        schema: ResponseFormat | None = None,
        config: PredictionSettings | None = None,
        output_column: str = "generated_text",
        **arguments: Unpack[ModelArguments],
    ) -> None:
        if (prompt is None) == (messages is None):
            raise LMStudioValueError("give prompt, a template such as 'Summarize: {body}', or messages, a column")
        super().__init__(model, output_column, **arguments)
        self._template = None if prompt is None else Template(prompt)
        self._messages, self._images, self._tools = messages, images, tools
        self._allow_download = flag_of(allow_image_download, "allow_image_download")
        self._allow_private_hosts = flag_of(allow_private_image_hosts, "allow_private_image_hosts")
        self._settings = with_format(schema, LlmPredictionConfig.parse(config), check=True)
        self._fields, self._parse = _fields(self._settings), _parser(schema, self._settings)
        taken = [name for name in map(self.column_name, (*_INFO, "tool_calls", "error")) if name in self._fields]
        if taken:
            raise LMStudioValueError(
                f"the schema has a field {taken[0]!r}, and a column beside it has this name; set output_column"
            )

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a batch must have."""
        names = (*(self._template.columns if self._template else ()), self._messages, self._images, self._tools)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def output_types(self) -> dict[str, Any]:
        """Return the Arrow types of the columns that it adds, without that of errors."""
        arrow = pyarrow()
        text, number = arrow.string(), arrow.int64()
        call = arrow.struct([("id", text), ("name", text), ("arguments", text)])
        fields = {name: column.type for name, column in self._fields.items()} or {self.output_column: text}
        info = dict(zip(_INFO, (text, number, number, text), strict=True))
        calls = {self.column_name("tool_calls"): arrow.list_(call)} if self._tools else {}
        return fields | calls | {self.column_name(name): kind for name, kind in info.items()}

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the responses."""
        rows = self.rows_of(batch)
        results = await self.run_all([partial(self._generate_or_error, row) for row in rows])
        yield self.with_columns(batch, results)

    async def _generate_or_error(self, row: Values) -> Values:
        return await self.caught(self._generate(row))

    async def _generate(self, row: Values) -> Values:
        result = await self._respond(row)
        calls, stats = [_cell_of_call(each) for each in result.tool_call_requests], result.stats
        return {
            **self._output(result),
            self.column_name("tool_calls"): calls,
            self.column_name("model"): result.end.model_info.get("modelKey", self.model),
            self.column_name("prompt_tokens"): stats.prompt_tokens_count,
            self.column_name("completion_tokens"): stats.predicted_tokens_count,
            self.column_name("host"): result.end.host,
        }

    async def _respond(self, row: Values) -> PredictionResult:
        handle, chat, settings = cast("AsyncLLM", self._handle), self._chat(row), self._settings
        tools = tools_of(row[self._tools], self._tools) if self._tools else None
        if tools is not None:
            settings = settings.merged(LlmPredictionConfig(raw_tools=tools))
        images: list[bytes | str] = []
        if self._images:
            images = images_of(row[self._images], self._images, allow_download=self._allow_download)
        # The schema was checked once, and the response is parsed below.
        if images:
            pending = with_images(chat, images, allow_private_hosts=self._allow_private_hosts)
            stream = handle.respond_stream(pending, config=settings, check_response=False)
            return await stream.wait_for_result()
        return await handle.respond(chat, config=settings, check_response=False)

    def _chat(self, row: Values) -> Chat:
        if self._template is not None:
            return Chat.from_history(self._template.render(row))
        assert self._messages is not None, "a template or a column of messages was given"
        return chat_of(row[self._messages], self._messages)

    def _output(self, result: PredictionResult) -> Values:
        """Return the text, or the fields of the schema. A response that only calls tools has no fields."""
        if not self._fields:
            return {self.output_column: result.content}
        if result.tool_call_requests and not result.content.strip():
            return {}
        text, stop_reason, reasoning = result.content, result.end.stop_reason, result.reasoning_content
        return read_response(lambda text: self._cells(self._parse(text)), text, stop_reason, reasoning)

    def _cells(self, values: Mapping[str, Any]) -> Values:
        """Return a parsed response as values of columns.

        Raises:
            ValueError: If a value has no place in its column, such as an integer of more than 64 bits.
        """
        cells: Values = {}
        for name, column in self._fields.items():
            try:
                cells[name] = pyarrow().scalar(column.convert(values.get(name)), type=column.type).as_py()
            except (OverflowError, TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from error
        return cells


class Reranker(Stage):
    """Scores the texts of each row: how relevant they are to its query.

    The new columns are the scores (a list of 64-bit floats from 0 to 1, in the order of the texts, with null where the
    model would say neither yes nor no), `…_model`, and `…_error` if `on_error` is `column`. Of a text that is too long
    for the model, the beginning is scored.

    Args:
        model: The key or identifier of the model.
        query: The column with the queries.
        texts: The column with lists of texts.
        instruction: What relevant means, as a sentence. By default, that of the template.
        template: The prompt, as a `RerankTemplate` or as its `prompt` alone; see `RerankParameters`.
        output_column: The name of the new column. The names of the others begin with it.
        arguments: See `ModelArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    kind: ClassVar[ModelKind] = "llm"
    load_policy: ClassVar[LoadPolicy] = "explicit"
    job_errors: ClassVar[tuple[type[LMStudioError], ...]] = (*JOB_ERRORS, LMStudioUnsupportedError)

    def __init__(
        self,
        model: str,
        *,
        query: str = "query",
        texts: str = "texts",
        instruction: str | None = None,
        template: RerankTemplate | str | None = None,
        output_column: str = "scores",
        **arguments: Unpack[ModelArguments],
    ) -> None:
        super().__init__(model, output_column, **arguments)
        self._query, self._texts = query, texts
        self._llm = cast("AsyncLLM", self._handle)
        self._parameters: RerankParameters = {"instruction": instruction, "template": template}
        Reranking(self._llm.model, "query", [], self._parameters)  # only made to check the parameters

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a batch must have."""
        return (self._query, self._texts)

    def output_types(self) -> dict[str, Any]:
        """Return the Arrow types of the columns that it adds, without that of errors."""
        arrow = pyarrow()
        return {self.output_column: arrow.list_(arrow.float64()), self.column_name("model"): arrow.string()}

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        """Yield a batch with the scores."""
        rows = self.rows_of(batch)
        results = await self.run_all([partial(self._rerank_or_error, row, len(rows)) for row in rows])
        yield self.with_columns(batch, results)

    async def _rerank_or_error(self, row: Values, rows: int) -> Values:
        return await self.caught(self._rerank(row, rows))

    async def _rerank(self, row: Values, rows: int) -> Values:
        query, texts = string_in(row[self._query], self._query), strings_in(row[self._texts], self._texts)
        at_once = max(int(self._slots.total_tokens) // rows, 1)  # few rows fill the slots with their texts
        parameters: RerankParameters = {**self._parameters, "max_concurrency": at_once}
        results = await self._llm.rerank(query, texts, **parameters)
        scores = {result.index: result.score for result in results}
        return {
            self.output_column: [scores[index] for index in range(len(texts))],
            self.column_name("model"): self.model,
        }


def _fields(settings: LlmPredictionConfig) -> dict[str, Column]:
    structured = settings.structured
    if structured is None or structured.get("jsonSchema") is None:
        return {}
    return columns_of(structured["jsonSchema"])


def _parser(schema: object, settings: LlmPredictionConfig) -> Callable[[str], dict[str, Any]]:
    """Return what reads a structured response, and raises `ValueError` if it does not match."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return lambda text: schema.model_validate_json(text).model_dump(mode="json", by_alias=True)
    validator = validator_of((settings.structured or {}).get("jsonSchema") or {})

    def parse(text: str) -> dict[str, Any]:
        value: dict[str, Any] = from_json(text)
        problem = next(iter(validator.iter_errors(value)), None)
        if problem is not None:
            raise ValueError(problem_of(problem, "the value"))
        return value

    return parse


def _cell_of_call(request: ToolCallRequest) -> dict[str, Any]:
    arguments = json.dumps(request.arguments or {}, ensure_ascii=False)
    return {"id": request.id, "name": request.name, "arguments": arguments}
