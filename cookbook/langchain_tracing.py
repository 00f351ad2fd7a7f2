# %% [markdown]
# # Trace a program with OpenTelemetry in LangChain
#
# OpenInference makes a span of every step: prompts, responses, tokens, duration.
# This recipe writes the spans to a local file and reads from it which model
# responded, and how fast.

# %%
import json
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## Instrument
#
# To send the spans to Phoenix, Langfuse or Jaeger, take
# `OTLPSpanExporter(endpoint=…)` of `opentelemetry-exporter-otlp`, and
# `BatchSpanProcessor`, which does not make the program wait. LlamaIndex has an
# instrumentor of its own: `LlamaIndexInstrumentor` of
# `openinference-instrumentation-llama-index`.

# %%
path = Path("output/spans.jsonl")
path.parent.mkdir(exist_ok=True)


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
# From here on, the program is the same as without tracing. At its end, the provider
# is shut down.

# %%
model = ChatLMStudio(model="smollm2-135m-instruct", temperature=0)
chain = ChatPromptTemplate.from_template("Answer briefly: {question}") | model
print("Response:", chain.invoke({"question": "Why is the sky blue?"}).text)

instrumentor.uninstrument()
provider.shutdown()
file.close()

# %% [markdown]
# ## Read the spans
#
# A span has the ID of its parent, and is exported when it ends: parents come after
# their children. Speed is not among the attributes of OpenInference; it is in the
# `response_metadata` of the response.

# %%
text = path.read_text(encoding="utf-8")
for line in text.splitlines():
    span = json.loads(line)
    attributes = span["attributes"]
    print(f"{span['name']}: {span['status']['status_code']}")
    if attributes.get("openinference.span.kind") == "LLM":
        (message,) = json.loads(attributes["output.value"])["generations"][0]
        metadata = message["message"]["kwargs"]["response_metadata"]
        print(
            f"  {metadata['model_name']}:",
            f"{attributes['llm.token_count.completion']} tokens,",
            f"{metadata['tokens_per_second']:.0f} tokens/s",
        )

# %% [markdown]
# ## What else is in a span
#
# Prompts and responses are, so treat the file like them. To leave them out, pass
# `config=TraceConfig(hide_inputs=True, hide_outputs=True)` of
# `openinference.instrumentation` to `instrument`. API tokens and the values of
# `headers` are not in it.
