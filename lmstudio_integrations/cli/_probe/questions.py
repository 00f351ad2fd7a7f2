"""The questions of the probe: a table, each with the calls that answer it.

A question calls; it does not look at what comes back, because the cassette has that. What it cannot ask: in which order
`unloadingOtherJITModel` and `startLoading` are sent, and whether a TTL makes an instance evictable. A just-in-time load
would unload models of the user.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lmstudio_integrations.cli._probe import connecting, loading, predicting, reasoning
from lmstudio_integrations.cli._probe.context import ProbeContext
from lmstudio_integrations.cli._probe.payloads import (
    CITY,
    CITY_FORMAT,
    FILES,
    GREETING,
    IMAGES,
    TOOLS,
    WEATHER,
    YES_OR_NO,
)
from lmstudio_integrations.types._config_base import checked


@dataclass(frozen=True)
class Question:
    """A question, and how it is asked.

    Attributes:
        name: In kebab case; the section of the cassette.
        text: In one sentence.
        anchor: The place in docs/protocol.md that the answer belongs to.
        calls: What the question does, for the user who is asked to permit it.
        run: Makes the calls.
        is_invalid: Whether a request breaks the rules on purpose.
    """

    name: str
    text: str
    anchor: str
    calls: str
    run: Callable[[ProbeContext], None]
    is_invalid: bool = False


QUESTIONS: tuple[Question, ...] = (
    Question(
        "load",
        "Which packets does a load send, and what does it report?",
        "load-model",
        "Load the model.",
        loading.load_main,
    ),
    Question(
        "default-identifier",
        "Which identifier does an instance get that requests none?",
        "load-model",
        "Load another instance without an identifier, and unload it.",
        loading.load_without_identifier,
    ),
    Question(
        "taken-identifier",
        "Which error reports an identifier that exists already?",
        "check-duplicate-identifier",
        "Load another instance with the identifier of the first one, which the server should reject.",
        loading.load_with_taken_identifier,
    ),
    Question(
        "unknown-model",
        "Which error reports a model that does not exist?",
        "load-model",
        "Load a model that does not exist.",
        loading.load_unknown_model,
    ),
    Question(
        "canceled-load",
        "How does a canceled load end?",
        "load-model",
        "Load another instance, and cancel that at once.",
        loading.cancel_load,
    ),
    Question(
        "idle-ttl",
        "When does an instance disappear that was loaded with a TTL?",
        "idle-ttl",
        "Load another instance for 0.3 idle seconds, and look for it for up to 10 seconds.",
        loading.wait_for_idle_ttl,
    ),
    Question(
        "idle-instance",
        "When was an instance used last that was only loaded, and which state has it?",
        "model-info",
        "Load another instance, and read its info and its state.",
        loading.read_idle_instance,
    ),
    Question(
        "real-context-length",
        "Do the info and the load settings of an instance have the context length that a response fills?",
        "get-load-config",
        "Load another instance with a context window of 300 tokens, read both, and fill it with a response.",
        loading.fill_context,
    ),
    Question(
        "instance-reference",
        "What becomes of the reference to an instance when the instance is unloaded, and loaded again?",
        "model-specifiers",
        "Load another instance, use it, unload it and load it again; use its first reference each time.",
        loading.reload_under_reference,
    ),
    Question(
        "model-matching",
        "Which names and paths find a loaded instance?",
        "model-matching",
        "Look up the loaded instance by ten spellings of its names.",
        loading.look_up_by_names,
    ),
    Question(
        "list-order",
        "In which order are loaded instances listed?",
        "list-loaded",
        "Load another instance, and list what is loaded.",
        loading.list_two_instances,
    ),
    Question(
        "unknown-instance",
        "Which error reports a prediction of an instance that is not loaded?",
        "error-codes",
        "Request a response of an instance that does not exist.",
        predicting.predict_with_unknown_instance,
    ),
    Question(
        "unknown-preset",
        "Which error reports a preset that does not exist?",
        "predict",
        "Request a response with a preset that does not exist.",
        predicting.predict_with_unknown_preset,
    ),
    *(
        Question(
            f"overflow-{name}",
            f"What does the policy {policy} do with a conversation, and a response, that do not fit?",
            "check-context-overflow",
            f"Two responses with a context window of 256 tokens, and the policy {policy}.",
            partial(predicting.overflow, policy=policy),
        )
        for name, policy in (
            ("stop-at-limit", "stopAtLimit"),
            ("truncate-middle", "truncateMiddle"),
            ("rolling-window", "rollingWindow"),
        )
    ),
    Question(
        "overflow-by-one-message",
        "What happens to a single message that does not fit?",
        "check-context-overflow",
        "A response to a message that is longer than a context window of 256 tokens.",
        predicting.overflow_by_one_message,
    ),
    Question(
        "queue",
        "What does an instance report while a prediction runs and two are queued, and in which order are they run?",
        "parallel-requests",
        "Three responses at once on an instance that runs one at a time; the first is canceled.",
        predicting.queue,
    ),
    Question(
        "unload-while-queued",
        "How do a running and a queued prediction end when their instance is unloaded?",
        "check-unload",
        "Two responses at once on another instance that runs one at a time; it is unloaded meanwhile.",
        predicting.unload_while_queued,
    ),
    Question(
        "structured-output",
        "Which packets does a response in a JSON schema have?",
        "structured-output",
        "A response in a JSON schema.",
        partial(predicting.respond_in_format, structured=CITY_FORMAT, prompt=CITY),
    ),
    Question(
        "gbnf-grammar",
        "Does a GBNF grammar work?",
        "structured-output",
        "A response in a GBNF grammar.",
        partial(predicting.respond_in_format, structured=YES_OR_NO, prompt="Is water wet?"),
    ),
    Question(
        "tools-and-format",
        "Does a model call a tool if a JSON schema is requested, too?",
        "structured-output",
        "A response with a tool and a JSON schema. The tool is described to the model, and never run.",
        partial(predicting.respond_with_tools, prompt=WEATHER, structured=CITY_FORMAT),
    ),
    Question(
        "tool-call",
        "Which packets does a tool call have, and why does the prediction stop?",
        "predict-packets",
        "A response with a tool, which is never run.",
        partial(predicting.respond_with_tools, prompt=WEATHER),
    ),
    Question(
        "required-tool-call",
        "Does a required tool call come if the prompt needs none?",
        "value-encodings",
        "A response that must call a tool, which is never run.",
        partial(predicting.respond_with_tools, prompt=GREETING, tool_choice={"type": "generic", "mode": "required"}),
    ),
    Question(
        "forced-tool-call",
        "Does the older setting `force` make the model call a tool?",
        "client-versions",
        "The same with the older setting for it.",
        partial(predicting.respond_with_tools, prompt=GREETING, tools={**TOOLS, "force": True}),
    ),
    Question(
        "log-probabilities",
        "Which samplers filter the candidates before their log-probabilities are reported?",
        "fragments",
        "Five responses of one token with log-probabilities, each with another sampler.",
        predicting.report_log_probabilities,
    ),
    Question(
        "log-probability-of-the-end",
        "Is the token reported that ends a response?",
        "fragments",
        "A response with log-probabilities.",
        predicting.report_last_token,
    ),
    Question(
        "stop-string",
        "What does a prediction report that ends at a stop string?",
        "prediction-stats",
        "A response that stops at the first space.",
        predicting.stop_at_string,
    ),
    Question(
        "raw-completion",
        "Does completeRawText work?",
        "complete-raw-text",
        "The continuation of a text.",
        predicting.complete,
    ),
    Question(
        "cached-tokens",
        "Are the prompts of two conversations in turn taken from the cache?",
        "parallel-requests",
        "Four responses of one token, in two conversations in turn.",
        predicting.alternate_conversations,
    ),
    Question(
        "cancel-before-first-token",
        "How does a prediction end that is canceled at once?",
        "check-cancel-points",
        "A response that is canceled at once.",
        partial(predicting.cancel, after_first=False),
    ),
    Question(
        "cancel-between-tokens",
        "How does a prediction end that is canceled while it generates?",
        "check-cancel-points",
        "A response that is canceled after its first token.",
        partial(predicting.cancel, after_first=True),
    ),
    Question(
        "unknown-key",
        "What happens to a setting that does not exist?",
        "config-stacks",
        "A response with a setting that does not exist.",
        partial(predicting.predict_with_settings, settings=[{"lmsi.probe": 1}]),
    ),
    Question(
        "value-out-of-range",
        "What happens to values out of range?",
        "prediction-keys",
        "Two responses with a top-p of 2 and a temperature of -1.",
        partial(
            predicting.predict_with_settings,
            settings=[{"llm.prediction.topPSampling": checked(2)}, {"llm.prediction.temperature": -1}],
        ),
        is_invalid=True,
    ),
    Question(
        "checked-and-false",
        "What does the Python SDK's form of a setting that is off do?",
        "off-values",
        "A response with a repeat penalty that is switched off as the Python SDK does it.",
        partial(
            predicting.predict_with_settings,
            settings=[{"llm.prediction.repeatPenalty": checked(value=False)}],
        ),
        is_invalid=True,
    ),
    Question(
        "processing-state-of-none",
        "What is the processing state of an instance that is not loaded?",
        "get-instance-processing-state",
        "Ask for the processing state of an instance that does not exist.",
        loading.read_state_of_unknown_instance,
    ),
    Question(
        "base-prediction-config",
        "Which prediction settings does an instance have by default?",
        "get-base-prediction-config",
        "Read the default settings of the model.",
        loading.read_base_prediction_config,
    ),
    Question(
        "load-config",
        "Which load settings does an instance report?",
        "get-load-config",
        "Read the load settings of the instance.",
        loading.read_load_config,
    ),
    Question(
        "model-usage",
        "Which memory is a model estimated to take, by its context length and its number of predictions at once?",
        "estimate-model-usage",
        "Estimate the memory of the model with three context lengths, and with four predictions at once.",
        loading.estimate_usage,
    ),
    Question(
        "hardware-survey",
        "How much memory may engines use, and which is reported if a survey names no engines?",
        "survey-hardware",
        "Ask for the hardware that the engines see, twice.",
        connecting.survey_hardware,
    ),
    Question(
        "link-status",
        "Which devices are linked, and what does the server call itself?",
        "link-devices",
        "Ask for the status of LM Link.",
        connecting.read_link_status,
    ),
    Question(
        "own-device",
        "May a request name the server's own machine by null?",
        "load-model",
        "Load another instance on the server's own machine, estimate its memory there, and unload it.",
        loading.use_own_device,
    ),
    Question(
        "unknown-device",
        "Which error reports a device that is not linked?",
        "link-devices",
        "Load another instance; load, estimate and unload on a device that does not exist, which should be rejected.",
        loading.use_unknown_device,
    ),
    Question(
        "tokens",
        "Do the tokens of a text and their count agree?",
        "tokenize",
        "Tokenize a sentence, and count its tokens.",
        predicting.count_tokens,
    ),
    Question(
        "prompt-template",
        "How are tools rendered into a prompt?",
        "apply-prompt-template",
        "Render a conversation with a tool as a prompt.",
        predicting.render_prompt,
    ),
    Question(
        "earlier-reasoning",
        "Does a chat template get the text of an earlier response as it is, with the reasoning between its tags?",
        "earlier-reasoning",
        "Render a conversation with reasoning: by the model's template, and by one that shows the parts of a message.",
        reasoning.render_earlier_reasoning,
    ),
    Question(
        "template-of-a-request",
        "Do predict and applyPromptTemplate take the prompt template of a request?",
        "earlier-reasoning",
        "Render a conversation, and request a response, by a template that shows nothing of it.",
        reasoning.use_template_of_request,
    ),
    Question(
        "custom-fields-of-reasoning",
        "Does the model have a custom field that keeps earlier reasoning?",
        "custom-fields",
        "Render a conversation with reasoning, and twice with a custom field if the model's key allows any.",
        reasoning.render_with_custom_fields,
    ),
    Question(
        "reasoning-tags",
        "Do the tags of reasoning come in fragments of their own, and with their white space?",
        "fragments",
        "A response, and one that a grammar makes begin with reasoning.",
        reasoning.reason,
    ),
    Question(
        "reasoning-and-format",
        "Does a JSON schema apply to the reasoning before the response, too?",
        "structured-output",
        "A response in a JSON schema, with reasoning switched on.",
        reasoning.reason_in_format,
    ),
    Question(
        "image-types",
        "Which types do a PNG, a JPEG, a WebP and a GIF file get?",
        "upload-file",
        "Upload four images of one pixel.",
        partial(connecting.upload, files=IMAGES),
    ),
    Question(
        "file-types",
        "Which types do other files get, by name and by content?",
        "upload-file",
        "Upload eight small files of several types.",
        partial(connecting.upload, files=FILES),
    ),
    Question(
        "file-lifetime",
        "Is a file still there when its client disconnects and comes back?",
        "upload-file",
        "Upload a small file, connect again as the same client, and ask for it.",
        connecting.look_for_file_after_reconnect,
    ),
    Question(
        "identity-after-release",
        "May a client come back with the same identity?",
        "authentication-rules",
        "Connect as a guest, disconnect, and connect again as the same guest.",
        connecting.reuse_identity,
    ),
    Question(
        "identity-with-another-passkey",
        "Is a second connection rejected that has the same identity and another passkey?",
        "authentication-rules",
        "Connect as a guest twice, the second time with another passkey.",
        connecting.change_passkey,
    ),
    Question(
        "tool-session",
        "May this client start a session with the tools of a plugin?",
        "tool-sessions",
        "Start the plugin of --plugin, else one that does not exist, and list its tools. None is called.",
        connecting.list_tools,
    ),
    Question(
        "unknown-endpoint",
        "Is a call of an unknown endpoint answered by a warning only?",
        "invalid-input",
        "A call and a channel that do not exist.",
        connecting.call_unknown_endpoints,
        is_invalid=True,
    ),
    Question(
        "invalid-parameter",
        "Is a parameter of the wrong form answered by a warning only?",
        "invalid-input",
        "A call that lacks a part.",
        connecting.send_invalid_parameter,
        is_invalid=True,
    ),
)
"""In the order in which they are asked: the first one loads the instance that most of the others use."""
