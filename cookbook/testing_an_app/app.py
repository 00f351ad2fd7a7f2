"""Sort the messages of passengers, and reply; `test_app.py` tests it."""

import sys
from typing import Literal

from pydantic import BaseModel

from lmstudio_integrations import LMStudioError
from lmstudio_integrations.langchain import ChatLMStudio

LATER = "Thank you for your message. We will reply tomorrow."


class Ticket(BaseModel):
    """Who handles a message, and how soon."""

    department: Literal["timetable", "lost property", "other"]
    urgent: bool


def sort(message: str, model: ChatLMStudio) -> Ticket:
    """Return who handles a message."""
    prompt = (
        f"Which department handles this message, and is it urgent?\n\n{message}"
    )
    return Ticket.model_validate(
        model.with_structured_output(Ticket).invoke(prompt)
    )


def reply(message: str, model: ChatLMStudio) -> str:
    """Return a reply; a standard text if the model cannot be used."""
    prompt = [("system", "You work for a ferry line. Be brief."), ("user", message)]
    try:
        return model.invoke(prompt, temperature=0.2).text
    except LMStudioError:
        return LATER


if __name__ == "__main__":
    text = " ".join(sys.argv[1:]) or "I lost my bag on the ferry!"
    model = ChatLMStudio(temperature=0)
    print(sort(text, model))
    print(reply(text, model))
