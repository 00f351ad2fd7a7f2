"""Ask one question, at the address in LMSTUDIO_HOST."""

import os

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(model=os.environ["MODEL"], temperature=0)
print(model.invoke("Name the capital of France.").text)
