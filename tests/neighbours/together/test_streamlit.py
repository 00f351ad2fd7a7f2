"""A chat page streams a response, and shows the tokens of a call."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "streamlit",
    "langchain-community",
    group="applications",
    job="a chat page streams responses, and shows the tokens of a call",
    settings="`st.write_stream(chunk.text for chunk in model.stream(question))`. Only `ChatLMStudio(streaming=True)` "
    "shows tokens in `StreamlitCallbackHandler`; LangGraph runs tools in threads, of which the handler shows nothing",
    environment={"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"},
    weekly=True,
)

CHAT_PAGE = f"""
import streamlit as st

from lmstudio_integrations.langchain import ChatLMStudio

if question := st.chat_input():
    st.chat_message("user").write(question)
    model = ChatLMStudio(model="{CHAT}")
    st.chat_message("assistant").write_stream(chunk.text for chunk in model.stream(question))
"""

HANDLER_PAGE = f"""
import streamlit as st
from langchain_community.callbacks.streamlit import StreamlitCallbackHandler

from lmstudio_integrations.langchain import ChatLMStudio

if question := st.chat_input():
    model = ChatLMStudio(model="{CHAT}", streaming=True)
    config = {{"callbacks": [StreamlitCallbackHandler(st.container())]}}
    st.write(model.invoke(question, config).text)
"""


def test_a_page_streams(serve: Serve) -> None:
    from streamlit.testing.v1 import AppTest

    server = serve({"then": "Twenty minutes."})
    page = AppTest.from_string(CHAT_PAGE, default_timeout=60).run()
    page.chat_input[0].set_value("How long is the trip?").run()
    assert not page.exception
    assert [(each.name, each.markdown[0].value) for each in page.chat_message] == [
        ("user", "How long is the trip?"),
        ("assistant", "Twenty minutes."),
    ]
    assert [each.messages[-1]["content"] for each in server.predictions] == ["How long is the trip?"]


def test_a_page_shows_tokens(serve: Serve) -> None:
    from streamlit.testing.v1 import AppTest

    serve({"then": "Twenty minutes."})
    page = AppTest.from_string(HANDLER_PAGE, default_timeout=60).run()
    page.chat_input[0].set_value("How long is the trip?").run()
    assert not page.exception
    assert [each.markdown[0].value for each in page.expander] == ["Twenty minutes."]
    assert page.markdown[-1].value == "Twenty minutes."
