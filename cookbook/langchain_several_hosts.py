# %% [markdown]
# # Use several hosts with fallbacks in LangChain
#
# A program that goes on when a host is off, asleep or busy: it retries where that
# can help, limits how long it waits, and then uses the next host. Load a model in
# the LM Studio that you use; any will do. [Several
# hosts](../guides/several-hosts.md) has the way with one object for all of them.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
import socket

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The hosts
#
# Each has its own model, token and timeouts. Here nothing listens on port 9, and a
# socket that nobody reads from is a host that is asleep: it accepts connections and
# never responds.

# %%
sleeping = socket.create_server(("127.0.0.1", 0))
address = f"127.0.0.1:{sleeping.getsockname()[1]}"

off = ChatLMStudio(host="localhost:9")
asleep = ChatLMStudio(host=address, timeouts={"connect_timeout": 0.5})
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
# `max_retries=2` of a `ChatLMStudio` repeats a call on the same host if it cannot
# be reached, or if the connection is lost before the program has received anything.
# It suits a host that restarts. It does not repeat what would fail again: a
# rejected token, a prompt that is too long, a timeout of the model.
#
# ## Fallbacks
#
# `with_fallbacks` catches every exception unless you name those that another host
# can avoid. A host is given up when its own retries are used up.

# %%
ELSEWHERE = (
    lms.LMStudioUnreachableError,
    lms.LMStudioConnectionLostError,
    lms.LMStudioTimeoutError,
    lms.LMStudioModelNotFoundError,
    lms.LMStudioInsufficientResourcesError,
)
model = off.with_fallbacks([asleep, awake], exceptions_to_handle=ELSEWHERE)

response = model.invoke("What is a harbor? Answer in one sentence.")
print("Response:", response.text)
print("Model:", response.response_metadata["model_name"])
if not response.text.strip():
    raise SystemExit("The model did not write any text; take a larger model.")

# %% [markdown]
# A stream falls back until its first chunk; after that, an error reaches the
# program. An error of the program is the same on every host, and is raised at once:

# %%
try:
    model.invoke("Hello!", max_tokens=-1)
except ValueError as error:
    print("Raised:", type(error).__name__)
sleeping.close()

# %% [markdown]
# ## Timeouts of a busy host
#
# A host that is awake may still be too slow for you. Each wait has its own limit,
# after which the prediction is cancelled on the server:
#
# - `queue_timeout`: other requests are served first. If it is low, the next host
#   responds instead.
# - `first_token_timeout`: the prompt is read.
# - `idle_timeout`: the model stops in the middle.
# - `timeout`: the whole call.
