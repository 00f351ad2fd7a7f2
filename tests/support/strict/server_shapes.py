"""The shapes of what a server sends, for the endpoints that the probe calls (docs/protocol.md#endpoints).

Those on channels of plugins are in `endpoint_shapes.py`, because every test of a client checks them.
"""

from collections.abc import Mapping

from tests.support.strict.endpoint_shapes import (
    ERROR,
    FRAGMENT,
    FROM_TOOL_SESSION,
    PROGRESS_DETAILS,
    TOOL_CALL,
)
from tests.support.strict.settings import COUNT, FRACTION, LLM_LOAD, NATURAL, PREDICTION, Config
from tests.support.strict.shapes import (
    BOOLEAN,
    NUMBER,
    TEXT,
    Array,
    JsonObject,
    Nullable,
    Number,
    Object,
    Shape,
    Tagged,
    Text,
    integer,
    one_of,
)

LLM_INFO = Object(
    {
        "type": one_of("llm"),
        "modelKey": Text(1),
        "format": one_of("gguf", "safetensors", "onnx", "ggml", "mlx_placeholder", "torch_safetensors", "pte", "yuzu"),
        "displayName": TEXT,
        "publisher": TEXT,
        "path": Text(1),
        "sizeBytes": NATURAL,
        "indexedModelIdentifier": TEXT,
        "deviceIdentifier": Nullable(TEXT),
        "vision": BOOLEAN,
        "trainedForToolUse": BOOLEAN,
        "maxContextLength": COUNT,
    },
    {
        "paramsString": TEXT,
        "architecture": TEXT,
        "quantization": Object({"name": TEXT, "bits": integer()}),
        "variants": Array(TEXT),
        "selectedVariant": TEXT,
    },
)
"""A language model as the library lists it (docs/protocol.md#model-info)."""

LLM_INSTANCE = Object(
    {
        **LLM_INFO.required,
        "identifier": Text(1),
        "instanceReference": Text(1),
        "ttlMs": Nullable(NUMBER),
        "lastUsedTime": Nullable(NUMBER),
        "contextLength": COUNT,
    },
    LLM_INFO.optional,
)

EMBEDDING_INSTANCE = Object(
    {
        **{
            name: LLM_INSTANCE.required[name]
            for name in LLM_INSTANCE.required
            if name not in {"vision", "trainedForToolUse"}
        },
        "type": one_of("embedding"),
    },
    LLM_INSTANCE.optional,
)

STATS = Object(
    {
        "stopReason": one_of(
            "userStopped",
            "modelUnloaded",
            "failed",
            "eosFound",
            "stopStringFound",
            "toolCalls",
            "maxPredictedTokensReached",
            "contextLengthReached",
        )
    },
    {
        "stopString": TEXT,
        **dict.fromkeys(("tokensPerSecond", "timeToFirstTokenSec", "totalTimeSec"), Number(0)),
        "numGpuLayers": NUMBER,
        **dict.fromkeys(("promptTokensCount", "predictedTokensCount", "totalTokensCount"), NATURAL),
        "usedDraftModelKey": TEXT,
        **dict.fromkeys(
            (
                "totalDraftTokensCount",
                "acceptedDraftTokensCount",
                "rejectedDraftTokensCount",
                "ignoredDraftTokensCount",
            ),
            NATURAL,
        ),
    },
)
"""The end of a prediction in numbers (docs/protocol.md#prediction-stats)."""

_PREDICTED: dict[str, Object] = {
    "promptProcessingProgress": Object({"progress": FRACTION, "details": PROGRESS_DETAILS}),
    "fragment": Object({"fragment": FRAGMENT}),
    "success": Object(
        {
            "stats": STATS,
            "modelInfo": LLM_INSTANCE,
            "loadModelConfig": Config(LLM_LOAD),
            "predictionConfig": Config(PREDICTION),
        }
    ),
}

PACKETS: Mapping[str, Mapping[str, Shape]] = {
    "llm": {
        "loadModel": Tagged(
            "type",
            {
                "resolved": Object({"info": LLM_INFO}, {"ambiguous": Array(TEXT, shortest=2)}),
                "progress": Object({"progress": FRACTION}),
                "success": Object({"info": LLM_INSTANCE}),
            },
        ),
        "completeRawText": Tagged("type", _PREDICTED),
        "predict": Tagged(
            "type",
            {
                **_PREDICTED,
                "toolCallGenerationStart": Object({}, {"toolCallId": TEXT}),
                "toolCallGenerationNameReceived": Object({"name": TEXT}),
                "toolCallGenerationArgumentFragmentGenerated": Object({"content": TEXT}),
                "toolCallGenerationEnd": Object({"toolCallRequest": TOOL_CALL}, {"rawContent": TEXT}),
                "toolCallGenerationFailed": Object({"error": ERROR}, {"rawContent": TEXT}),
            },
        ),
    },
    "plugins": {"startToolUseSession": FROM_TOOL_SESSION},
}
"""What a server sends on a channel, by namespace and endpoint."""

_BYTES = NATURAL

_SURVEY_RESULT = Object(
    {"code": one_of("unset", "success", "error", "noDevicesFound", "invalidDevice"), "message": TEXT}
)
_GPU = Object(
    {
        "name": TEXT,
        "deviceId": integer(),
        "totalMemoryCapacityBytes": _BYTES,
        "dedicatedMemoryCapacityBytes": _BYTES,
        "integrationType": one_of("unknown", "integrated", "discrete"),
        "detectionPlatform": one_of("unknown", "shell", "ROCm", "CUDA", "OpenCl", "Metal", "Vulkan"),
        "detectionPlatformVersion": TEXT,
        "otherInfo": JsonObject(),
    }
)
_CPU = Object(
    {
        "architecture": one_of("x86_64", "ARM64", "unknown"),
        "supportedInstructionSetExtensions": Array(one_of("AVX2", "AdvSIMD", "AVX")),
    },
    {"name": TEXT},
)
_ENGINE = Object(
    {
        **dict.fromkeys(("name", "version", "engine", "platform"), TEXT),
        "compatibility": Object({"status": TEXT}, {"message": TEXT}),
        "supportedModelFormatNames": Array(one_of("GGUF", "MLX", "GGML", "PT", "PTE")),
        "hardwareSurvey": Object(
            {
                "gpuSurveyResult": Object({"result": _SURVEY_RESULT, "gpuInfo": Array(_GPU)}),
                "cpuSurveyResult": Object({"result": _SURVEY_RESULT}, {"cpuInfo": _CPU}),
            }
        ),
        "memoryInfo": Object(dict.fromkeys(("ramCapacity", "vramCapacity", "totalMemory"), _BYTES)),
    },
    {"visibleDevicesConfig": Object({"visibleDevices": Array(integer()), "changesOrder": BOOLEAN})},
)

RESULTS: Mapping[str, Mapping[str, Shape | None]] = {
    "llm": {
        "unloadModel": None,
        "listLoaded": Array(LLM_INSTANCE),
        "getModelInfo": LLM_INSTANCE,
        "getLoadConfig": Config(LLM_LOAD),
        "getBasePredictionConfig": Config(PREDICTION),
        "getInstanceProcessingState": Object(
            {"status": one_of("idle", "processingPrompt", "generating", "computingEmbedding"), "queued": NATURAL}
        ),
        "estimateModelUsage": Object(
            {
                "memory": Object(
                    {
                        "confidence": one_of("high", "low"),
                        **dict.fromkeys(
                            (
                                "modelVramBytes",
                                "contextVramBytes",
                                "totalVramBytes",
                                "modelBytes",
                                "contextBytes",
                                "totalBytes",
                            ),
                            _BYTES,
                        ),
                    }
                ),
                "passesGuardrails": BOOLEAN,
            }
        ),
        "tokenize": Object({"tokens": Array(integer())}),
        "countTokens": Object({"tokenCount": NATURAL}),
        "applyPromptTemplate": Object({"formatted": TEXT}),
    },
    "embedding": {"listLoaded": Array(EMBEDDING_INSTANCE)},
    "system": {"version": Object({"version": TEXT, "build": integer()})},
    "files": {
        "uploadFileBase64": Object(
            {
                "identifier": Text(1),
                "fileType": one_of(
                    "image", "text/plain", "application/pdf", "application/word", "text/other", "unknown"
                ),
                "sizeBytes": NATURAL,
            }
        ),
        "getLocalFileAbsolutePath": Object({"path": TEXT}),
    },
    "repository": {
        "lmLinkStatus": Object(
            {
                "status": one_of("offline", "starting", "online", "stopping"),
                "issues": Array(one_of("deviceDisabled", "notLoggedIn", "noAccess", "badVersion")),
                "peers": Array(
                    Object(
                        {
                            "deviceIdentifier": TEXT,
                            "deviceName": TEXT,
                            "status": one_of("connected", "disconnected"),
                        }
                    )
                ),
                "deviceIdentifier": Nullable(TEXT),
                "deviceName": TEXT,
            },
            {
                "preferredDeviceIdentifier": TEXT,
                "reconnectInSeconds": NATURAL,
                "lastError": Object({"message": TEXT, "timestamp": NATURAL}),
            },
        )
    },
    "runtime": {"surveyHardware": Object({"status": one_of("ok", "noCompatibleBackends"), "engines": Array(_ENGINE)})},
}
"""What a server replies to a call, by namespace and endpoint; `None` is void."""
