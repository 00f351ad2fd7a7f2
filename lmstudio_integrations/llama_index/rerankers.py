"""`LMStudioReranker`: sorts retrieved nodes in LlamaIndex with a language model over LM Studio's native protocol."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # core does not list it
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import ConfigDict, Field, SecretStr

from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_decision import RerankerSettings
from lmstudio_integrations._adapters.settings_types import api_token_field
from lmstudio_integrations._support.text import shown
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._settings import CORE_DESCRIPTIONS, ComponentSettings
from lmstudio_integrations.types.reranking import RerankResult

_dispatcher = get_dispatcher(__name__)


class LMStudioReranker(RerankerSettings, ComponentSettings, BaseNodePostprocessor):
    """Sort retrieved nodes by how relevant they are, with a model in LM Studio.

    Each node is one call, in which the model generates one token: the scores are the probabilities of yes and no. The
    object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy it,
    pickle it, and share it between threads and event loops. Rerankers of the Qwen3 kind are asked as they were trained,
    other language models in their chat template. The page `docs/llama-index/query-engine.md` goes on to query engines.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from llama_index.core.schema import NodeWithScore, TextNode

        from lmstudio_integrations.llama_index import LMStudioReranker

        reranker = LMStudioReranker(model="qwen3-reranker-0.6b", top_n=2)
        texts = ["The pool costs four euros.", "The ferry takes an hour."]
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        for node in reranker.postprocess_nodes(nodes, query_str="What does a swim cost?"):
            print(node.score, node.text)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioReranker"),)
    _framework_descriptions: ClassVar[Mapping[str, str]] = CORE_DESCRIPTIONS

    api_token: SecretStr | None = api_token_field(exclude=True)  # `to_dict` has what a dump has

    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED,
        description="With which of its metadata a node is scored. The default is `embed`: as it was embedded.",
    )

    keep_retrieval_score: bool = Field(
        default=False,
        description="Whether the metadata of each node gets its `retrieval_score`. The default is `False`.",
    )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this class in `to_dict` and traces."""
        return "LMStudioReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._events(nodes, query_bundle) as (query, report):
            return report(self._rank(nodes, self._rerank(query, self._texts(nodes))))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._events(nodes, query_bundle) as (query, report):
            return report(self._rank(nodes, await self._arerank(query, self._texts(nodes))))

    @contextmanager
    def _events(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Generator[tuple[str, Callable[[list[NodeWithScore]], list[NodeWithScore]]]]:
        """Emit core's events around a call; yield its query, and what takes its result.

        Raises:
            LMStudioValueError: If there is no query, or one is no node.
        """
        if query_bundle is None:
            raise LMStudioValueError("a reranker needs the query; pass query_str or query_bundle")
        _check_nodes(nodes)
        query, name, top_n = query_bundle.query_str, self.model or "unknown", self.top_n or len(nodes)
        started: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name))
        with self.callback_manager.event(CBEventType.RERANKING, payload=started) as event:

            def report(ranked: list[NodeWithScore]) -> list[NodeWithScore]:
                event.on_end(payload={EventPayload.NODES: ranked})
                _dispatcher.event(ReRankEndEvent(nodes=ranked))
                return ranked

            yield query, report

    def _texts(self, nodes: Iterable[NodeWithScore]) -> list[str]:
        return [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]

    def _rank(self, nodes: Sequence[NodeWithScore], results: Iterable[RerankResult]) -> list[NodeWithScore]:
        ranked: list[NodeWithScore] = []
        for result in results:
            node = nodes[result.index].node
            if self.keep_retrieval_score:
                metadata = {**node.metadata, "retrieval_score": nodes[result.index].score}
                node = node.model_copy(update={"metadata": metadata})
            ranked.append(NodeWithScore(node=node, score=result.score))
        return ranked


def _check_nodes(nodes: Iterable[object]) -> None:
    """Check what is to be sorted.

    Raises:
        LMStudioValueError: If one is no node with a score.
    """
    for index, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            example = f"TextNode(text={shown(node)})" if isinstance(node, str) else "…"
            raise LMStudioValueError(
                f"nodes must be NodeWithScore; got {shown(node)} at index {index}; write NodeWithScore(node={example})"
            )
