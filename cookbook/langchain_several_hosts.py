# %% [markdown]
# # Use several hosts with fallbacks in LangChain
#
# A program that goes on when a host is off, asleep or busy: it retries where that
# can help, limits how long it waits, and then uses the next host.

# %%
import socket

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# Load a model in the LM Studio that you use; any will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# ## The hosts
#
# One object per host, each with its own model, token and timeouts. Here nothing
# listens on port 9, and a socket that nobody reads from is a host that is asleep:
# it accepts connections and never responds. The last host is the LM Studio that you
# use anyway.

# %%
sleeping = socket.create_server(("127.0.0.1", 0))
sleeping.settimeout(0)

off = ChatLMStudio(host="localhost:9")
asleep = ChatLMStudio(
    host=f"127.0.0.1:{sleeping.getsockname()[1]}", connect_timeout=0.5
)
awake = ChatLMStudio(temperature=0)

# %% [markdown]
# ## How a host fails
#
# A port without a listener is an error at once. A silent host costs
# `connect_timeout`, 5 seconds unless you set it.

# %%
for host in (off, asleep):
    try:
        host.invoke("Hello!")
    except (lms.LMStudioUnreachableError, lms.LMStudioTimeoutError) as error:
        print(f"{host.host}: {type(error).__name__}")

# %% [markdown]
# ## Retries
#
# `max_retries` repeats a call on the same host if it cannot be reached, or if the
# connection is lost before the program has received anything. It suits a host that
# restarts. It does not repeat what would fail again or is already half delivered:
# a rejected token, a model that does not fit, a prompt that is too long, a timeout
# of the model, a stream that has begun.


# %%
def connections() -> int:
    """Return how many connections the sleeping host got since the last call."""
    count = 0
    while True:
        try:
            sleeping.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


connections()
for retries in (0, 1):
    try:
        asleep.invoke("Hello!", max_retries=retries)
    except lms.LMStudioTimeoutError as error:
        print(f"max_retries={retries}: {connections()} connections, then", end=" ")
        print(f"{error.timeout_name} expired")

# %% [markdown]
# ## Fallbacks
#
# `with_fallbacks` catches every exception unless you name those that another host
# can avoid. A model that is missing on one host may be on the next.
#
# Retries come first: a host is given up when its own retries are used up. With
# several hosts, none or one is enough.

# %%
ELSEWHERE = (
    lms.LMStudioUnreachableError,
    lms.LMStudioConnectionLostError,
    lms.LMStudioTimeoutError,
    lms.LMStudioModelNotFoundError,
    lms.LMStudioInsufficientResourcesError,
)
model = off.with_fallbacks([asleep, awake], exceptions_to_handle=ELSEWHERE)

response = model.invoke("Hello!")
print("Response of", response.response_metadata["model_name"])

# %% [markdown]
# Each part of a chain can fall back on its own. A stream falls back until its first
# chunk; after that, an error reaches the program.

# %%
text = ""
for chunk in model.stream("What is a harbor? Answer in one sentence."):
    text += chunk.text
print("Response:", text)
if not text.strip():
    raise SystemExit("The model did not write any text; take a larger model.")

# %% [markdown]
# ## Timeouts of a busy host
#
# A host that is awake may still be too slow for you. Each wait has its own limit:
#
# - `queue_timeout`: other requests are served first. If it is low, the next host
#   responds instead.
# - `first_token_timeout`: the prompt is read.
# - `idle_timeout`: the model stops in the middle.
# - `timeout`: the whole call.
#
# All of them cancel the prediction on the server, so that it is free again.

# %%
timeouts = ["queue_timeout", "first_token_timeout", "idle_timeout", "timeout"]
print("Seconds:", {name: getattr(awake, name) for name in timeouts})

# %% [markdown]
# ## What does not fall back
#
# An error of the program is the same on every host. It is raised at once: the
# sleeping host got two connections from the two calls above, but none from this.

# %%
try:
    model.invoke("Hello!", max_tokens=-1)
except ValueError as error:
    print("Raised:", type(error).__name__)
assert connections() == 2
sleeping.close()
