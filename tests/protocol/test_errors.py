"""Errors on the wire become the exception that the code says, else the one that the server's text says.

The suggestions that the client adds to them: `tests/client/support/test_suggestions.py`.
"""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.scripted import error_codes
from lmstudio_integrations.protocol.errors import means_unloaded, to_exception
from tests.protocol.pair import SessionPair
from tests.support.strict.shapes import schema_of

DISPLAY: dict[str, tuple[dict[str, Any], type[lms.LMStudioServerError], str]] = {
    "generic.specificModelUnloaded": ({}, lms.LMStudioModelUnloadedError, ""),
    "generic.noModelMatchingQuery": (
        {"query": {"identifier": "x"}, "loadedModelsSample": ["qwen"], "totalLoadedModels": 1},
        lms.LMStudioModelNotFoundError,
        "qwen",
    ),
    "generic.pathNotFound": (
        {"path": "qwen2.5-7b-instrct", "availablePathsSample": ["qwen2.5-7b-instruct", "llama"], "totalModels": 2},
        lms.LMStudioModelNotFoundError,
        "id you mean 'qwen2.5-7b-instruct'?",
    ),
    "generic.identifierNotFound": (
        {"identifier": "x", "loadedModelsSample": [], "totalLoadedModels": 0},
        lms.LMStudioModelNotFoundError,
        "no model of this kind is loaded; load it with `lms load x`",
    ),
    "generic.domainMismatch": (
        {"path": "nomic", "actualDomain": "embedding", "expectedDomain": "llm"},
        lms.LMStudioWrongModelKindError,
        "",
    ),
    "generic.engineDoesNotSupportFeature": (
        {
            "feature": "grammar",
            "engineName": "e",
            "engineType": "t",
            "installedVersion": "1",
            "supportedVersion": None,
        },
        lms.LMStudioUnsupportedError,
        "",
    ),
    "generic.missingRuntimeExtension": ({}, lms.LMStudioModelLoadError, ""),
    "generic.presetNotFound": (
        {
            "specifiedFuzzyPresetIdentifier": "x",
            "availablePresetsSample": [{"identifier": "poet", "name": "Poet"}],
            "totalAvailablePresets": 1,
        },
        lms.LMStudioPresetNotFoundError,
        "poet",
    ),
}
"""Every code of the description with its members, its exception, and what of it must help people."""


def test_every_error_code_of_the_sdk_has_a_sample_here_and_in_the_emulator() -> None:
    codes = {each["properties"]["code"]["const"] for each in schema_of("frames", "error", "displayData")["anyOf"]}
    assert codes == DISPLAY.keys() == error_codes.MEMBERS.keys()


@pytest.mark.parametrize("code", DISPLAY)
def test_each_error_code_has_its_exception_with_all_details(code: str) -> None:
    members, kind, _ = DISPLAY[code]
    display = {"code": code, **members}
    error = to_exception(
        {
            "title": "Title",
            "rootTitle": "Root",
            "cause": "because",
            "errorData": {"a": 1},
            "displayData": display,
            "stack": "at main.js",
        },
        "Model load",
    )
    assert type(error) is kind
    assert (error.title, error.root_title, error.cause) == ("Title", "Root", "because")
    assert (error.display_data, error.error_data) == (display, {"a": 1})
    assert str(error).startswith("Model load error: Root: Title")
    assert "because" in str(error)
    assert "main.js" not in str(error)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            (
                "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with "
                "context length of only 4096 tokens, which is not enough. Try to load the model with a larger context "
                "length, or provide a shorter input"
            ),
            lms.LMStudioContextOverflowError,
        ),
        ("Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)", lms.LMStudioContextOverflowError),
        ("request (9000 tokens) exceeds the available context size (4096 tokens)", lms.LMStudioContextOverflowError),
        (
            "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
            lms.LMStudioModelNotFoundError,
        ),
        ('Model "x" not found. Please specify a valid model.', lms.LMStudioModelNotFoundError),
        ("Cannot find a model", lms.LMStudioModelNotFoundError),
        ('Failed to load model "x". Error: Model is not embedding.', lms.LMStudioWrongModelKindError),
        ("Model is not llm.", lms.LMStudioWrongModelKindError),
        ("Model is unloaded.", lms.LMStudioModelUnloadedError),
        (
            (
                "Model loading was stopped due to insufficient system resources. Under the current settings, this "
                "model requires approximately 40 GB of memory"
            ),
            lms.LMStudioInsufficientResourcesError,
        ),
        ("Model loading aborted due to insufficient system resources", lms.LMStudioInsufficientResourcesError),
        ("Failed to load model", lms.LMStudioModelLoadError),
        ('Failed to load model "jinja-templates-7b"', lms.LMStudioModelLoadError),
        ("Failed to load model 'acme/model has crashed'", lms.LMStudioModelLoadError),
        ("Error loading model. /models/jinja/a.gguf, /models/my-jinja.gguf", lms.LMStudioModelLoadError),
        ("Received load-error", lms.LMStudioModelLoadError),
        (
            "Error loading model. (Exit code: 6). Unknown error. Try a different model and/or config.",
            lms.LMStudioModelLoadError,
        ),
        ("No LM Runtime found for model format 'gguf'!", lms.LMStudioModelLoadError),
        (
            "The model has crashed without additional information. (Exit code: 18446744072635812000)",
            lms.LMStudioModelCrashedError,
        ),
        ("received prediction-error", lms.LMStudioPredictionError),
        ("Error in iterating prediction stream: TypeError", lms.LMStudioPredictionError),
        ("Channel Error", lms.LMStudioPredictionError),
        ("Stop reason: generation failed", lms.LMStudioPredictionError),
        (
            'Error rendering prompt with jinja template: "No user query found in messages."',
            lms.LMStudioPromptTemplateError,
        ),
        ("This is usually an issue with the model's prompt template", lms.LMStudioPromptTemplateError),
        (
            (
                "Engine protocol applyPromptTemplate request returned 500: Jinja Exception: After the optional system "
                "message, conversation roles must alternate user and assistant roles except for tool calls and results."
            ),
            lms.LMStudioPromptTemplateError,
        ),
        ("System role not supported", lms.LMStudioPromptTemplateError),
        ("Conversation roles must alternate user/assistant/user/assistant/...", lms.LMStudioPromptTemplateError),
        ("No user query found in messages.", lms.LMStudioPromptTemplateError),
        ("Failed to parse tool call: Unexpected end of content.", lms.LMStudioToolCallError),
        # llama.cpp#25072, #27025, #24523, #27733; mlx-lm#1125
        ("The model produced output that does not match the expected peg-gemma4 format", lms.LMStudioToolCallError),
        ("The model produced output that does not match the expected Content-only format", lms.LMStudioToolCallError),
        ("Failed to parse input at pos 12: <tool_call>", lms.LMStudioToolCallError),
        ("parse error: unexpected end of input in tool call", lms.LMStudioToolCallError),
        ("Invalid diff: '{\"path\":' not found at start of '{\"file\":'", lms.LMStudioToolCallError),
        ("Invalid diff: now finding less tool calls!", lms.LMStudioToolCallError),
        ("ValueError: No function provided.", lms.LMStudioToolCallError),
        # llama.cpp#25510: a call in the conversation
        ("Failed to parse tool call arguments as JSON: parse error at line 1", lms.LMStudioServerError),
        ("Failed to parse tool call: Extra content after end of tool call", lms.LMStudioToolCallError),
        ("ValueError: 'type' must be a string", lms.LMStudioStructuredOutputError),
        ("logprobs is not supported with tools + stream", lms.LMStudioUnsupportedError),
        ("Setting envVars requires a privileged client", lms.LMStudioUnsupportedError),
        ("You have no permission to write llm.load.engineCwd.", lms.LMStudioUnsupportedError),
        ("A required privilege is not held by the client.", lms.LMStudioServerError),  # Windows, of large pages
        (
            (
                "An LM Studio API token is required to make requests to this server, but none was provided using the "
                "Authorization header using the 'Bearer' scheme"
            ),
            lms.LMStudioAuthenticationError,
        ),
        ("Something that nobody has heard of", lms.LMStudioServerError),
    ],
)
def test_each_known_error_text_has_its_exception(text: str, kind: type[lms.LMStudioServerError]) -> None:
    for field in ("title", "cause"):
        error = to_exception({"title": "Oh no", field: text}, "Chat response")
        assert type(error) is kind
        assert text in str(error) or (isinstance(error, lms.LMStudioContextOverflowError) and error.used)
        assert getattr(error, field) == text


MEMORY = "set a smaller context_length, use a smaller model, or unload others"
RUNTIME = "update its runtime"
AGAIN = "download the model again"

# Each with its source; without one, the words are those of the engine itself.
LOAD_ERRORS: list[tuple[str, type[lms.LMStudioServerError], str]] = [
    *(
        (text, lms.LMStudioInsufficientResourcesError, MEMORY)
        for text in (
            "error loading model: unable to allocate CUDA0 buffer",  # bug-tracker#790
            "error loading model: unable to allocate Vulkan0 buffer",  # bug-tracker#698, #1088
            "Failed to initialize the context: failed to allocate buffer for kv cache",  # bug-tracker#943
            "ggml_vulkan: Device memory allocation of size 1059303232 failed.",  # bug-tracker#2133, and the next two
            "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
            "alloc_tensor_range: failed to allocate Vulkan0 buffer of size 1059303232",
            # bug-tracker#2240
            "RuntimeError: [metal::malloc] Attempting to allocate 48736917632 bytes which is greater than the maximum",
            "Failed to initialize the context: failed to allocate compute pp buffers",
            "hipErrorOutOfMemory",
            "CUDA error: out of memory",
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8192.00 MiB: cudaMalloc failed: out of memory",
            "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            "vk::Device::allocateMemory: ErrorOutOfHostMemory",
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 8589934592",
            "std::bad_alloc",
            "llama_mmap: Cannot allocate memory",
        )
    ),
    *(
        (text, lms.LMStudioModelLoadError, RUNTIME)
        for text in (
            "error loading model architecture: unknown model architecture: 'mistral3'",  # bug-tracker#1268
            "error loading model architecture: unknown model architecture: 'flux'",  # bug-tracker#2280
            "Error when loading model: ValueError: Model type glm4v_moe not supported.",  # lms#289
            "Error when loading model: ValueError: Model type xlm-roberta not supported.",  # bug-tracker#2336
            "Error when loading model: ValueError: Model type laguna not supported.",
            # bug-tracker#1739
            "ValueError: Model type gemma4 not supported. Error: No module named 'mlx_vlm.models.gemma4'",
            "ModuleNotFoundError: No module named 'mlx_lm.models.qwen4'",
            "Error when loading model: ValueError: Gemma 4 support is not ready yet, stay tuned!",  # mlx-engine#301
            "error loading model vocabulary: unknown pre-tokenizer type: 'deepseek-r1-qwen'",  # bug-tracker#359
            "load_hparams: unknown projector type: gemma4uv",  # bug-tracker#2021
        )
    ),
    *(
        (text, lms.LMStudioModelLoadError, AGAIN)
        for text in (
            # bug-tracker#95
            "llama.cpp error: 'done_getting_tensors: wrong number of tensors; expected 292, got 291'",
            "error loading model: missing tensor 'blk.24.attn_k.weight'",  # bug-tracker#1824
            "llama_model_load: error loading model: read error: Bad address",  # bug-tracker#1343
            "Error when loading model: KeyError: 'model_type'",  # lms#552
            "tensor 'a' data is not within the file bounds, model is corrupted or incomplete",
            "gguf_init_from_file_impl: invalid magic characters: 'vers', expected 'GGUF'",
            "error loading model: unexpectedly reached end of file",
            "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        )
    ),
    *(
        (text, lms.LMStudioModelLoadError, "pass another identifier")
        for text in (
            'Model with identifier "some-model" already exists',  # lmstudio-python's tests
            'A model with the identifier "m" already exists',
            "A model with the identifier m already exists",
        )
    ),
    # bug-tracker#1584, #1095
    ("Attempt to pull a snapshot of system resources failed. Error: 'x'", lms.LMStudioModelLoadError, "restart LM"),
    # bug-tracker#2171
    ("Fork path 'C:\\app\\embeddingworker.js' does not exist.", lms.LMStudioModelLoadError, "update the application"),
    # bug-tracker#2036
    (
        "failed to load draft model, 'mtp-a.gguf': error loading model: x",
        lms.LMStudioModelLoadError,
        "leave out the dr",
    ),
    # public file 54609250632
    (
        "MTP speculative decoding requires a GGUF model with a bundled supported MTP head",
        lms.LMStudioUnsupportedError,
        "leave out speculative_draft_mtp",
    ),
    # bug-tracker#2184
    ("LM Link connection entered error state peer_keepalive_timeout", lms.LMStudioModelLoadError, "linked device"),
    # public file 57993376411
    (
        "V Cache Quantization requires flash attention to be enabled.",
        lms.LMStudioModelLoadError,
        "flash_attention=True",
    ),
    ("No LM Runtime found for model format 'gguf'!", lms.LMStudioModelLoadError, "install or update the runtime"),
    # bug-tracker#1658
    ("Failed to load LLM engine from path: C:\\a.node", lms.LMStudioModelLoadError, "install or update the runtime"),
    ("Error loading model. (Exit code: 6). Unknown error.", lms.LMStudioModelLoadError, "try a smaller context_length"),
]


@pytest.mark.parametrize(("text", "kind", "advice"), LOAD_ERRORS)
@pytest.mark.parametrize("name", ["title", "rootTitle", "cause"])
def test_each_kind_of_a_failed_load_has_its_own_advice(
    text: str, kind: type[lms.LMStudioServerError], advice: str, name: str
) -> None:
    for heading in ("Failed to load model", "Received load-error", "Error loading model."):
        error = to_exception({"title": heading, name: text}, "Model load", lms.LMStudioModelLoadError)
        assert type(error) is kind
        assert error.suggestion is not None
        assert advice in error.suggestion
        assert ("context_length" in error.suggestion) is ("context_length" in advice)
    assert isinstance(to_exception({name: text}, "RPC"), kind)


def test_a_limit_of_other_resources_is_not_too_little_memory() -> None:
    # mlx-engine#264
    text = "Error in iterating prediction stream: RuntimeError: [metal::malloc] Resource limit (499000) exceeded."
    assert type(to_exception({"title": text}, "Chat response")) is lms.LMStudioPredictionError


def test_a_crash_for_want_of_memory_stays_a_crash_because_the_model_is_gone() -> None:
    error = to_exception({"title": "The model has crashed. CUDA error: out of memory"}, "Chat response")
    assert type(error) is lms.LMStudioModelCrashedError


@pytest.mark.parametrize(
    ("text", "used", "limit"),
    [
        (
            (
                "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with "
                "context length of only 4096 tokens"
            ),
            9000,
            4096,
        ),
        ("Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)", 9000, 4096),
        ("Cannot truncate prompt with n_keep 9000 >= n_ctx 4096", 9000, 4096),
        ("request (9000 tokens) exceeds the available context size (4096 tokens)", 9000, 4096),
        ("request exceeds the available context size (4096 tokens)", None, 4096),
        ("the prompt exceeds the context", None, None),
        ("Input length 6491 exceeds context length 1500", 6491, 1500),
        (
            (
                "Input does not fit in context length. The input has 359277 tokens, but the context length only "
                "supports 262144 tokens."
            ),
            359277,
            262144,
        ),
        ("The prompt does not fit in the context window.", None, None),
        (f"n_keep ({'9' * 5000}) >= n_ctx (4096)", None, None),
    ],
)
def test_a_context_overflow_has_used_and_limit(text: str, used: int | None, limit: int | None) -> None:
    for field in ("title", "rootTitle", "cause"):
        error = to_exception({"title": "Oh no", field: text}, "Chat response")
        assert isinstance(error, lms.LMStudioContextOverflowError)
        assert (error.used, error.limit) == (used, limit)


@pytest.mark.parametrize(
    ("code", "is_unloaded"),
    [
        ("generic.noModelMatchingQuery", True),
        ("generic.identifierNotFound", True),
        ("generic.specificModelUnloaded", True),
        ("generic.pathNotFound", False),
    ],
)
def test_some_codes_mean_that_an_instance_is_not_loaded(code: str, is_unloaded: bool) -> None:
    error = to_exception({"title": "x", "displayData": {"code": code, **DISPLAY[code][0]}}, "Chat response")
    assert isinstance(error, lms.LMStudioModelNotFoundError)
    assert means_unloaded(error) is is_unloaded


def test_the_code_ranks_above_the_text_and_the_text_above_the_default() -> None:
    coded = {"title": "Model is unloaded.", "displayData": {"code": "generic.presetNotFound"}}
    assert type(to_exception(coded, "RPC")) is lms.LMStudioPresetNotFoundError
    assert type(to_exception({"title": "Model is unloaded."}, "RPC", lms.LMStudioModelLoadError)) is (
        lms.LMStudioModelUnloadedError
    )
    assert type(to_exception({"title": "hm"}, "RPC", lms.LMStudioModelLoadError)) is lms.LMStudioModelLoadError
    unknown = {"title": "Model is unloaded.", "displayData": {"code": "generic.fromTheFuture"}}
    assert type(to_exception(unknown, "RPC")) is lms.LMStudioModelUnloadedError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({}, "RPC error: Unknown error"),
        ({"title": ""}, "RPC error: Unknown error"),
        ({"rootTitle": "root"}, "RPC error: root"),
        ({"title": "same", "rootTitle": "same"}, "RPC error: same"),
        ({"title": "t", "suggestion": "try again"}, "RPC error: t\n  suggestion: try again"),
        ({"title": 5, "cause": [], "suggestion": {}, "errorData": "x", "displayData": 1}, "RPC error: Unknown error"),
    ],
)
def test_missing_and_malformed_error_fields_are_ignored(error: dict[str, Any], text: str) -> None:
    made = to_exception(error, "RPC")
    assert str(made) == text
    assert made.display_data is None
    assert made.error_data is None


@pytest.mark.parametrize("code", DISPLAY)
def test_display_data_with_members_of_other_types_still_decides_the_class(code: str) -> None:
    members, kind, _ = DISPLAY[code]
    junk: list[Any] = [None, 5, "text", [None], {"a": []}]
    for malformed in [*(dict.fromkeys(members, value) for value in junk), {}]:
        assert type(to_exception({"title": "t", "displayData": {"code": code, **malformed}}, "RPC")) is kind
    for unreadable in junk:
        assert type(to_exception({"title": "t", "displayData": {"code": unreadable}}, "RPC")) is lms.LMStudioServerError


MEGABYTE = 1_000_000

BAITS = (
    "keep the first 1",
    "tokens to keep from the initial prompt is greater than the context ",
    "context window has been ",
    "reached context length of 1",
    "the artifact does not ",
    "model does not ",
    "engine protocol fetch ",
    "no engine protocol runtime is ",
    "speculative decoding is not ",
    "while executing Call at ",
    "image input is not ",
    "failed to parse ",
    "requires flash ",
    "no lm runtime ",
    "exited before becoming ",
    "n_keep",
    "overflows the available ",
    "does not match the expected native ",
    "input has 1 tokens, ",
    "input length 1 exceeds ",
    "no models are currently ",
    'model "" not ',
    "model is not an ",
    "model has been ",
    "insufficient system ",
    "out of device ",
    "failed to allocate compute pp ",
    "device memory allocation of size 1 ",
    "unknown model ",
    "model type x is not ",
    "fork path x does not ",
    "the identifier x already ",
    "wrong number of ",
    "prompt ",
    "does not support ",
    "failed to parse tool ",
    "failed to loa load-erro ",
    "'type' must be a ",
    "prediction-iterating ",
    "api ",
    "model 'model \"",
    "first 1 tokens n_keep (1",
    "endpointName = -endpoint",
)
"""What most of a pattern fits and all of it never does."""


@pytest.mark.parametrize("bait", BAITS)
def test_the_text_of_an_error_or_a_warning_is_read_in_linear_time(bait: str) -> None:
    # Over and over, and quadratic in the length of one number, word or line.
    for text in (bait * (MEGABYTE // len(bait)), f"{bait}{'1' * MEGABYTE}"):
        assert type(to_exception({"title": text}, "RPC")) is lms.LMStudioServerError
        pair = SessionPair()
        _, receiver = pair.call("listLoaded")
        pair.raw({"type": "communicationWarning", "warning": text})
        assert not receiver.ends


@pytest.mark.parametrize("name", ["title", "rootTitle", "cause", "suggestion"])
def test_a_long_error_text_keeps_its_beginning_and_its_end(name: str) -> None:
    text = f"The beginning. {'n_keep first 1 tokens ' * (MEGABYTE // 22)} The end."
    error = to_exception({"title": "Oh no", name: text}, "Chat response")
    kept = str(error)
    assert len(kept) < 20_000
    assert "The beginning." in kept
    assert "The end." in kept
    assert "characters omitted" in kept
