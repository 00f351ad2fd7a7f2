# %% [markdown]
# # Use several hosts with fallbacks in LangChain
#
# A program that goes on when a host is off, asleep or busy: it retries where that
# can help, limits how long it waits, and then uses the next host. [Use several
# hosts](../guides/several-hosts.md) shows how one object uses all of them.

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

MODEL = "smollm2-135m-instruct"
off = ChatLMStudio(model=MODEL, host="localhost:9")
asleep = ChatLMStudio(model=MODEL, host=address, timeouts={"connect_timeout": 0.5})
awake = ChatLMStudio(model=MODEL, temperature=0)

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
sleeping.close()

# %% [markdown]
# A stream falls back until its first chunk; after that, an error reaches the
# program. An error of the program, such as a wrong argument, is the same on every
# host, and is raised at once.
#
# ## Timeouts of a busy host
#
# A host that is awake may still be too slow for you. Each wait has its own limit,
# after which the prediction is cancelled on the server:
#
# - `queue_timeout`: other requests are served first. If it is low, the next host
#   responds instead.
# - `first_token_timeout`: the prompt is read.
# - `idle_timeout`: the model stops in the middle.
# - `total_timeout`: the whole call.
