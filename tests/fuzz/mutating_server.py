"""A server that knows each request and answers it with valid packets, mutated; frames and their ids stay valid.

So every call is answered, and every channel closed: a call that waits for its timeout is a defect of the client.
"""

import contextlib
import http
import json
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from lmstudio_integrations._support.typeguards import is_list
from tests.fuzz.mutations import mutated
from tests.protocol.samples import TOOL_CALL, fragment, progress
from tests.protocol.transcripts import LLM_INFO, LLM_INSTANCE
from tests.types.test_results import STATS

LOAD_CONFIG = {
    "fields": [
        {"key": "llm.load.contextLength", "value": 4096},
        {"key": "llm.load.numParallelSessions", "value": 4},
        {"key": "llm.load.seed", "value": {"checked": True, "value": 5}},
        {"key": "load.gpuSplitConfig", "value": {"strategy": "evenly", "disabledGpus": [], "priority": [0]}},
        {"key": "llm.load.llama.kCacheQuantizationType", "value": {"checked": False, "value": "f16"}},
    ]
}
PREDICTION_CONFIG = {
    "fields": [
        {"key": "llm.prediction.temperature", "value": 0.8},
        {"key": "llm.prediction.maxPredictedTokens", "value": {"checked": True, "value": 50}},
        {"key": "llm.prediction.stopStrings", "value": ["END"]},
    ]
}
END = {
    "type": "success",
    "stats": {**STATS, "usedDraftModelKey": "draft", "acceptedDraftTokensCount": 1},
    "modelInfo": LLM_INSTANCE,
    "loadModelConfig": LOAD_CONFIG,
    "predictionConfig": PREDICTION_CONFIG,
}
TOKENS = [
    {"text": "Hello", "id": 1, "logProb": -0.1, "candidates": [{"text": "Hello", "id": 1, "logProb": -0.1}]},
    {"text": "!", "id": 2, "logProb": None, "candidates": []},
]
CANDIDATES = [{"text": text, "id": number, "logProb": -float(number)} for number, text in enumerate("abcdefghij")]
RELEVANCE = [{"text": "yes", "id": 3, "logProb": -0.1, "candidates": CANDIDATES}]
ONE_TOKEN = json.dumps({"key": "llm.prediction.maxPredictedTokens", "value": {"checked": True, "value": 1}})
DETAILS = {"cachedTokenCount": 1, "totalPromptTokenCount": 9, "processedPromptTokenCount": 8}
FULL = {"tokensCount": 1, "containsDrafted": False, "reasoningType": "none", "isStructural": False}
WEATHER = {"type": "function", "id": "c1", "name": "weather", "arguments": {"city": "Oslo", "days": [1, {"a": None}]}}
FAILED = {"title": "Failed to parse tool call", "cause": "no JSON", "displayData": {"code": "generic.presetNotFound"}}

STREAMS: tuple[list[dict[str, Any]], ...] = (
    [progress(0.5), {**progress(1.0), "details": DETAILS}, fragment("Hello", **FULL, tokens=TOKENS), fragment("!")],
    [
        fragment("<think>", **{**FULL, "reasoningType": "reasoningStartTag", "isStructural": True}),
        fragment("Hm.", **{**FULL, "reasoningType": "reasoning"}),
        fragment("</think>", **{**FULL, "reasoningType": "reasoningEndTag", "isStructural": True}),
        fragment("Yes.", **FULL),
    ],
    [
        fragment("I look.", **FULL),
        {"type": "toolCallGenerationStart", "toolCallId": "c1"},
        {"type": "toolCallGenerationNameReceived", "name": "weather"},
        {"type": "toolCallGenerationArgumentFragmentGenerated", "content": '{"city": "Oslo", '},
        {"type": "toolCallGenerationArgumentFragmentGenerated", "content": '"days": [1, {"a": null}]}'},
        {"type": "toolCallGenerationEnd", "toolCallRequest": WEATHER, "rawContent": "<tool>"},
    ],
    [
        {"type": "toolCallGenerationStart"},
        {"type": "toolCallGenerationEnd", "toolCallRequest": TOOL_CALL},
        {"type": "toolCallGenerationStart", "toolCallId": "c2"},
        {"type": "toolCallGenerationNameReceived", "name": "weather"},
        {"type": "toolCallGenerationArgumentFragmentGenerated", "content": '{"city": "Os'},
        {"type": "toolCallGenerationFailed", "error": FAILED, "rawContent": '{"city": "Os'},
    ],
    [fragment('{"name": "Ann", ', **FULL), fragment('"age": 7}', **FULL)],
    [fragment('{"name": ', **FULL), fragment("[" * 5_000, **FULL)],
    [fragment('{"name": "Ann", "age": ', **FULL), fragment("9" * 5_000, **FULL), fragment("}", **FULL)],
    [{"type": "error", "error": FAILED}],
)
SCORED = [fragment("yes", **FULL, tokens=RELEVANCE)]
"""The response to a reranker, which asks for one token."""
LOADS: tuple[list[dict[str, Any]], ...] = (
    [{"type": "alreadyLoaded", "info": LLM_INSTANCE}],
    [
        {"type": "startLoading", "identifier": "m1", "info": LLM_INFO},
        {"type": "unloadingOtherJITModel", "info": LLM_INSTANCE},
        {"type": "loadProgress", "progress": 0.5},
        {"type": "loadSuccess", "info": LLM_INSTANCE},
    ],
)
ERRORS: tuple[Any, ...] = (
    {"title": "The model has crashed", "cause": "n_keep (5) >= n_ctx (4)", "rootTitle": "Oh", "suggestion": "Try."},
    {
        "title": "Unknown model",
        "displayData": {"code": "generic.pathNotFound", "path": "m", "availablePathsSample": ["a/m1", "b"]},
    },
    {"title": "None", "displayData": {"code": "generic.noModelMatchingQuery", "loadedModelsSample": ["m1"]}},
    {"title": "Kind", "displayData": {"code": "generic.domainMismatch", "path": "m", "actualDomain": "llm"}},
    {"title": "Context", "cause": "keep the first 9 tokens when context the overflows. length of only 4 tokens"},
    "just a text",
)
RESULTS: dict[str, Any] = {
    "getModelInfo": LLM_INSTANCE,
    "getLoadConfig": LOAD_CONFIG,
    "listLoaded": [LLM_INSTANCE],
    "getBasePredictionConfig": {"fields": [{"key": "llm.prediction.temperature", "value": 0.8}, {"key": "new"}]},
    "listDownloadedModels": [LLM_INFO],
    "tokenize": {"tokens": [1, 2, 3]},
    "countTokens": {"tokenCount": 3},
    "applyPromptTemplate": {"formatted": "user: hi"},
    "embedString": {"embedding": [0.5, 0, -1.5]},
    "getInstanceProcessingState": {"status": "idle", "queued": 0},
    "version": {"version": "0.4.0", "build": 1},
}


class FuzzServer:
    """The server. `random` decides which response comes, and `mutate` what becomes of it."""

    def __init__(self, mutate: Callable[..., Any] = mutated) -> None:
        self.random = Random(0)
        self.mutate = mutate
        self.address = ""

    @contextlib.contextmanager
    def running(self) -> Iterator["FuzzServer"]:
        """Serve in a thread."""
        with serve(self._serve, "127.0.0.1", 0, process_request=_greet, compression=None) as listening:
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            self.address = f"127.0.0.1:{listening.socket.getsockname()[1]}"
            try:
                yield self
            finally:
                listening.shutdown()
                thread.join(600)

    def _serve(self, socket: ServerConnection) -> None:
        with contextlib.suppress(OSError):
            socket.recv()
            socket.send('{"success":true}')
            for text in socket:
                request = json.loads(text)
                for frame in self._responses(request, self.random):
                    socket.send(json.dumps(frame))

    def _responses(self, request: dict[str, Any], random: Random) -> Iterator[dict[str, Any]]:
        fails = random.random() < 0.08
        error = self.mutate(random.choice(ERRORS), random)
        if request["type"] == "rpcCall":
            call = {"callId": request["callId"]}
            if fails:
                yield {"type": "rpcError", **call, "error": error}
            else:
                yield {"type": "rpcResult", **call, "result": self.mutate(RESULTS[request["endpoint"]], random, 2)}
        elif request["type"] == "channelCreate":
            channel = {"channelId": request["channelId"]}
            for packet in self._packets(request, random):
                yield {"type": "channelSend", **channel, "message": packet}
            if fails:
                yield {"type": "channelError", **channel, "error": error}
            else:
                yield {"type": "channelClose", **channel}

    def _packets(self, request: dict[str, Any], random: Random) -> list[Any]:
        others = {"getOrLoad": LOADS, "loadModel": LOADS}.get(request["endpoint"])
        streams = [SCORED] if ONE_TOKEN in json.dumps(request) else STREAMS
        packets = random.choice(others) if others else [*random.choice(streams), END]
        changed = self.mutate(packets, random)
        return changed if is_list(changed) else [changed]


def _greet(socket: ServerConnection, request: Request) -> Response | None:
    if request.path != "/lmstudio-greeting":
        return None
    return socket.respond(http.HTTPStatus.OK, '{"lmstudio":true}')
