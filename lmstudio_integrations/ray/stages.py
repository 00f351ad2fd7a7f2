"""`embed`, `generate` and `rerank`: stages of Ray Data on LM Studio.

They are thin over `map_batches` with the classes of `actors.py`. Everything that can be checked is checked here, in the
driver, before Ray starts anything.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from os import PathLike
from typing import Any, Protocol, TypedDict, TypeVar, cast
from weakref import WeakKeyDictionary

from typing_extensions import Unpack

from lmstudio_integrations.client.embeddings.long_texts import LengthPolicy
from lmstudio_integrations.client.predictions.requests import PredictionSettings
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.ray._resume import remaining
from lmstudio_integrations.ray._stage import ModelArguments, Stage, check_column, check_known
from lmstudio_integrations.ray.actors import Embedder, Generator, Reranker
from lmstudio_integrations.types.reranking import RerankTemplate
from lmstudio_integrations.types.structured import ResponseFormat

NUM_CPUS = 0.1
"""The share of a core that an actor reserves. It mostly waits, and must not keep the tasks that read from starting."""

BATCH_SIZE, TASKS = 32, 4
"""Rows in a batch, and tasks that run at once in one actor, each of which has up to four batches in flight."""


class Dataset(Protocol):
    """What the stages need of a `ray.data.Dataset`; type checkers need no Ray."""

    @property
    def map_batches(self) -> Callable[..., Any]:
        """Adds a stage."""
        ...

    @property
    def schema(self) -> Callable[..., Any]:
        """Returns the columns, if they are known."""
        ...


DatasetT = TypeVar("DatasetT", bound=Dataset)


class RayArguments(TypedDict, total=False):
    """The keyword arguments that are passed to `map_batches` under the same names.

    Attributes:
        concurrency: The number of actors, or `(min, max)` for a pool that grows. The default is 1: one actor keeps many
            hosts busy. Without `hosts`, start one for each node that has LM Studio.
        compute: An `ActorPoolStrategy`, instead of `concurrency`. Its `max_concurrent_calls_per_actor`, 4 by default,
            is how many tasks run at once in one actor; all of them share the slots of the hosts.
        batch_size: How many rows are in a batch. The default is 32.
        num_cpus: The share of a core that an actor reserves. The default is 0.1.
        num_gpus: How many GPUs an actor reserves. It needs none.
        memory: How many bytes of memory an actor reserves.
        resources: Custom resources that an actor reserves, such as `{"lmstudio": 1}` on nodes that have them.
        label_selector: Labels that the node of an actor must have.
        fallback_strategy: What to do if no node has the labels.
        accelerator_type: The accelerator that the node of an actor must have.
        runtime_env: The environment of the actors.
        ray_remote_args_fn: Returns more such arguments for each actor.
    """

    concurrency: int | tuple[int, int] | tuple[int, int, int]
    compute: Any
    batch_size: int
    num_cpus: float
    num_gpus: float
    memory: float
    resources: Mapping[str, float]
    label_selector: Mapping[str, str]
    fallback_strategy: list[dict[str, Any]]
    accelerator_type: str
    runtime_env: Mapping[str, Any]
    ray_remote_args_fn: Callable[[], dict[str, Any]]


class StageArguments(ModelArguments, RayArguments, total=False):
    """The keyword arguments that all stages share, with those of `ModelArguments` and `RayArguments`.

    Attributes:
        key: The column that identifies a row. `resume_from` needs it.
        resume_from: The Parquet folder of an earlier run, as a path or URI. Rows whose key is there without an error
            are skipped. The folder need not exist yet.
    """

    key: str | None
    resume_from: str | PathLike[str] | None


def embed(
    ds: DatasetT,
    *,
    model: str,
    text: str = "text",
    output_column: str = "embeddings",
    dimensions: int | None = None,
    length_policy: LengthPolicy = "error",
    prefix: str = "",
    **arguments: Unpack[StageArguments],
) -> DatasetT:
    """Return a dataset with a column of vectors. Nothing runs before Ray needs the rows.

    Args:
        ds: A `ray.data.Dataset`.
        model: The key or identifier of the model.
        text: The column with the texts.
        output_column: The name of the new column; see `Embedder` for the others.
        dimensions: The length of the vectors; see `Embedder`.
        length_policy: What to do with texts that are too long for the model; see `Embedder`.
        prefix: Text to put before each text; see `Embedder`.
        arguments: See `StageArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid, or the columns of the dataset are known and do not fit.
    """
    own = {"text": text, "dimensions": dimensions, "length_policy": length_policy, "prefix": prefix}
    return _add_stage(Embedder, ds, {"model": model, "output_column": output_column, **own}, arguments)


def generate(
    ds: DatasetT,
    *,
    model: str,
    prompt: str | None = None,
    messages: str | None = None,
    images: str | None = None,
    allow_image_download: bool = False,
    allow_private_image_hosts: bool = False,
    tools: str | None = None,
    schema: ResponseFormat | None = None,
    config: PredictionSettings | None = None,
    output_column: str = "generated_text",
    **arguments: Unpack[StageArguments],
) -> DatasetT:
    """Return a dataset with a column of texts, or with the fields of a schema. Nothing runs before Ray needs the rows.

    Args:
        ds: A `ray.data.Dataset`.
        model: The key or identifier of the model.
        prompt: A template with names of columns, such as `Summarize: {body}`.
        messages: The column with conversations, instead of `prompt`; see `Generator`.
        images: A column with images; see `Generator`.
        allow_image_download: Whether images may be downloaded from http and https URLs. The default is `False`.
        allow_private_image_hosts: Whether they may also come from addresses that are not public. The default is
            `False`.
        tools: A column with tools; see `Generator`.
        schema: A pydantic class or a JSON schema of an object. Its fields become columns instead of the text.
        config: Prediction settings, such as `{"temperature": 0, "max_tokens": 100}`.
        output_column: The name of the new column; see `Generator` for the others.
        arguments: See `StageArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid, or the columns of the dataset are known and do not fit.
    """
    columns = {"prompt": prompt, "messages": messages, "images": images, "tools": tools}
    own = {
        "model": model,
        "output_column": output_column,
        "schema": schema,
        "config": config,
        "allow_image_download": allow_image_download,
        "allow_private_image_hosts": allow_private_image_hosts,
    }
    return _add_stage(Generator, ds, {**own, **columns}, arguments)


def rerank(
    ds: DatasetT,
    *,
    model: str,
    query: str = "query",
    texts: str = "texts",
    instruction: str | None = None,
    template: RerankTemplate | str | None = None,
    output_column: str = "scores",
    **arguments: Unpack[StageArguments],
) -> DatasetT:
    """Return a dataset with a column of scores, of the texts of each row. Nothing runs before Ray needs the rows.

    Args:
        ds: A `ray.data.Dataset`.
        model: The key or identifier of the model.
        query: The column with the queries.
        texts: The column with lists of texts.
        instruction: What relevant means; see `Reranker`.
        template: The prompt; see `Reranker`.
        output_column: The name of the new column; see `Reranker` for the others.
        arguments: See `StageArguments`.

    Raises:
        LMStudioValueError: If an argument is invalid, or the columns of the dataset are known and do not fit.
    """
    own = {"query": query, "texts": texts, "instruction": instruction, "template": template}
    return _add_stage(Reranker, ds, {"model": model, "output_column": output_column, **own}, arguments)


_COLUMNS: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()
"""The columns of datasets that these functions returned: Ray knows them only after it has run the stage."""


def _add_stage(
    actor: Callable[..., Stage], ds: DatasetT, own: Mapping[str, Any], arguments: Mapping[str, Any]
) -> DatasetT:
    """Check everything, and add the stage."""
    check_known(arguments, StageArguments.__annotations__, "lmstudio_integrations.ray.embed")
    own = {**own, **{name: arguments[name] for name in ModelArguments.__annotations__ if name in arguments}}
    stage = actor(**own)  # only made to check its arguments; this sends nothing
    columns = _columns(ds)
    if columns is not None:
        stage.check(columns)
    ray_arguments = {name: arguments[name] for name in RayArguments.__annotations__ if name in arguments}
    rows = _remaining(ds, stage, columns, arguments.get("key"), arguments.get("resume_from"))
    added = rows.map_batches(actor, fn_constructor_kwargs=own, batch_format="pyarrow", **_map_arguments(ray_arguments))
    if columns is not None:
        _COLUMNS[added] = [*columns, *stage.types()]
    return cast("DatasetT", added)


def _columns(ds: Dataset) -> Collection[str] | None:
    """Return the columns of a dataset if they are known without running anything."""
    known = _COLUMNS.get(ds)
    if known is None:
        schema = ds.schema(fetch_if_missing=False)
        known = None if schema is None else list(schema.names)
    return known


def _remaining(ds: Any, stage: Stage, columns: Collection[str] | None, key: str | None, output: Any) -> Any:
    if key is not None and columns is not None:
        check_column(key, columns)
    if output is None:
        return ds
    if key is None:
        raise LMStudioValueError(
            "resume_from needs key, the column that identifies a row in the dataset and the output"
        )
    return remaining(ds, key, output, stage.column_name("error"))


def _map_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `map_batches`: those that were given, and our defaults.

    Raises:
        LMStudioValueError: If the number of actors is given twice, or is no number.
    """
    ray_arguments = {"batch_size": BATCH_SIZE, "num_cpus": NUM_CPUS, **arguments}
    concurrency = ray_arguments.pop("concurrency", None)
    if "compute" not in ray_arguments:
        ray_arguments["compute"] = _pool(1 if concurrency is None else concurrency)
    elif concurrency is not None:
        raise LMStudioValueError("give concurrency or compute, not both")
    return ray_arguments


def _pool(concurrency: Any) -> Any:
    """Return the pool of actors; Ray has the argument `concurrency` for the same, and advises against it."""
    pool: Any = import_module("ray.data").ActorPoolStrategy
    numbers = [concurrency] * 2 if isinstance(concurrency, int) else list(concurrency)
    if len(numbers) not in {2, 3} or not all(type(each) is int and each > 0 for each in numbers):
        raise LMStudioValueError(f"concurrency must be a number of actors, or (min, max); got {concurrency!r}")
    sizes = dict(zip(("min_size", "max_size", "initial_size"), numbers, strict=False))
    return pool(**sizes, max_concurrent_calls_per_actor=TASKS)
