# %% [markdown]
# # Trace a program with OpenTelemetry in LangChain
#
# OpenInference makes a span of every step: prompts, responses, tokens, duration.
# This recipe writes the spans to a local file and reads from it which model
# responded, and how fast. No service and no account is needed.

# %%
import json
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# Any loaded model will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# ## Instrument
#
# The exporter writes one line of JSON per span. To send the spans to Phoenix,
# Langfuse or Jaeger instead, replace it by `OTLPSpanExporter(endpoint=…)` of
# `opentelemetry-exporter-otlp`, and `SimpleSpanProcessor` by `BatchSpanProcessor`,
# which does not make the program wait.
#
# LlamaIndex has an instrumentor of its own for the same provider:
# `LlamaIndexInstrumentor` of `openinference-instrumentation-llama-index`.

# %%
temporary = tempfile.TemporaryDirectory()
path = Path(temporary.name) / "spans.jsonl"


def to_line(span: ReadableSpan) -> str:
    """Return a span as one line of JSON."""
    return f"{span.to_json(indent=None)}\n"


file = path.open("w", encoding="utf-8")
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=to_line))
)
instrumentor = LangChainInstrumentor()
instrumentor.instrument(tracer_provider=provider)

# %% [markdown]
# ## Run
#
# From here on, the program is the same as without tracing. Its model has a secret:
# the key for a reverse proxy in front of LM Studio. An `api_token` is one, too.

# %%
PROXY_KEY = "sk-proxy-4711-0815"
model = ChatLMStudio(temperature=0, headers={"X-Proxy-Key": PROXY_KEY})
prompt = ChatPromptTemplate.from_template("Answer in one sentence: {question}")
chain = prompt | model

print("Response:", chain.invoke({"question": "Why is the sky blue?"}).text)
print("Response:", end=" ")
for chunk in chain.stream({"question": "Why is grass green?"}):
    print(chunk.text, end="")
print()

# %% [markdown]
# In a program that runs for long, the provider is shut down once, at its end.

# %%
instrumentor.uninstrument()
provider.shutdown()
file.close()
text = path.read_text(encoding="utf-8")
spans = [json.loads(line) for line in text.splitlines()]

# %% [markdown]
# ## The tree
#
# A span has the ID of its parent. Spans are exported when they end, so parents come
# after their children.


# %%
def children(parent: str | None) -> list[dict[str, Any]]:
    """Return the spans under a span; without one, those at the top."""
    found = [span for span in spans if span["parent_id"] == parent]
    return sorted(found, key=lambda span: str(span["start_time"]))


def print_tree(parent: str | None = None, depth: int = 0) -> None:
    """Print the names of spans, and how each ended."""
    for span in children(parent):
        status = span["status"]["status_code"]
        print("  " * depth + f"{span['name']}: {status}")
        print_tree(span["context"]["span_id"], depth + 1)


print("Spans:")
print_tree()

# %% [markdown]
# ## Model, tokens and speed
#
# OpenInference has attributes for tokens. Speed is not among them, but the span has
# the whole response with its `response_metadata`: what LM Studio measured.


# %%
def metadata_of(span: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of the response in a span of a model."""
    result = json.loads(span["attributes"]["output.value"])
    metadata: dict[str, Any] = result["generations"][0][0]["message"]["kwargs"][
        "response_metadata"
    ]
    return metadata


calls = [
    span
    for span in spans
    if span["attributes"].get("openinference.span.kind") == "LLM"
]
for span in calls:
    metadata = metadata_of(span)
    tokens = span["attributes"]["llm.token_count.completion"]
    print(
        f"{metadata['model_name']}: {tokens} tokens,",
        f"{metadata['tokens_per_second']:.0f} tokens/s,",
        f"first after {metadata['time_to_first_token_sec'] * 1000:.0f} ms",
    )
    assert tokens > 0
    assert metadata["tokens_per_second"] > 0
assert len(calls) == 2

# %% [markdown]
# ## What else is in a span
#
# Prompts and responses are, so treat the file like them. To leave them out, pass
# `config=TraceConfig(hide_inputs=True, hide_outputs=True)` of
# `openinference.instrumentation` to `instrument`. Tokens and durations stay; the
# speed goes with the response.
#
# API tokens and the values of `headers` are not in it.

# %%
assert PROXY_KEY not in text
if model.api_token:
    assert model.api_token.get_secret_value() not in text
assert "Why is the sky blue?" in text
temporary.cleanup()
