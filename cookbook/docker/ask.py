"""Ask one question, at the address in LMSTUDIO_HOST."""

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)  # uses the loaded model
print(model.invoke("Name the capital of France.").text)
