"""A chain: a prompt, a model on LM Studio, and a parser that returns the text.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Run the chain twice: non-streaming, then streaming."""
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You are a helpful assistant."),
            ("human", "What is the capital of {country}?"),
        ]
    )
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=100)
    chain = prompt | model | StrOutputParser()

    response = chain.invoke({"country": "France"})
    print(response)
    assert response.strip()

    chunks: list[str] = []
    for chunk in chain.stream({"country": "France"}):
        print(chunk, end="", flush=True)
        chunks.append(chunk)
    print()
    assert len(chunks) > 1
    assert "".join(chunks).strip()


if __name__ == "__main__":
    main()
