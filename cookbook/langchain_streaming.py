# %% [markdown]
# # Chat and stream in LangChain
#
# Print a response while it is generated, ask a second question in the same
# conversation, and stop a long response early.

# %%
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(model="smollm2-135m-instruct", temperature=0)


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

# %% [markdown]
# Leaving the loop cancels the prediction on the server, so that it does not go on
# generating what nobody reads.

# %%
story = ""
for chunk in model.stream("Write a long story about a ferry."):
    story += chunk.text
    if len(story) > 30:
        break
print("Start of the cancelled response:", story)
