# %% [markdown]
# # Stream a chat in LangChain, and cancel a response
#
# Print a response as it is generated, ask a second question in the same
# conversation, and stop a long response early.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)


def stream_response(messages: list[BaseMessage]) -> AIMessageChunk:
    """Print a response as it is generated; return the complete message."""
    response = AIMessageChunk(content="")
    print("Response:", end=" ")
    for chunk in model.stream(messages):
        print(chunk.text, end="", flush=True)
        response += chunk
    print()
    return response


# %% [markdown]
# The sum of the chunks is the message that `invoke` would return. It is the next
# message of the conversation.

# %%
messages: list[BaseMessage] = [HumanMessage("Describe the moon in one sentence.")]
first = stream_response(messages)
messages += [first, HumanMessage("Say it in five words.")]
second = stream_response(messages)

# %% [markdown]
# Token counts and metadata arrive on the last chunk, so they are in the sum.

# %%
for message in (first, second):
    print("Tokens:", message.usage_metadata)
    print("Finish reason:", message.response_metadata["finish_reason"])
assert first.usage_metadata
assert second.usage_metadata
assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]

# %% [markdown]
# Leaving the loop cancels the prediction on the server, so that it does not go on
# generating what nobody reads.

# %%
texts: list[str] = []
for chunk in model.stream("Write a long story about a ferry."):
    texts.append(chunk.text)
    if len(texts) == 8:
        break
else:
    raise SystemExit("The model did not write a long story; take a larger model.")
print("Start of the cancelled response:", "".join(texts))
