"""Complete programs in the style of LM Studio's documentation: each call of those pages, in all three styles."""

import ast
import asyncio
import builtins
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._environment import HOST_VARIABLE
from lmstudio_integrations.client.convenience import reset_default_client
from lmstudio_integrations.emulator import Emulator
from tests.client.fake import Socket, authenticate, fake_server, send_result

SMALL, LARGE = "llama-3.2-1b-instruct", "qwen/qwen3-4b-2507"
INFO = {
    "architecture": "qwen2",
    "contextLength": 4096,
    "displayName": "Qwen2.5 7B Instruct 1M",
    "format": "gguf",
    "identifier": "qwen2.5-7b-instruct",
    "instanceReference": "lpFZPBQjhSZPrFevGyY6Leq8",
    "maxContextLength": 1010000,
    "modelKey": "qwen2.5-7b-instruct-1m",
    "paramsString": "7B",
    "path": "lmstudio-community/Qwen2.5-7B-Instruct-1M-GGUF/Qwen2.5-7B-Instruct-1M-Q4_K_M.gguf",
    "sizeBytes": 4683073888,
    "trainedForToolUse": True,
    "type": "llm",
    "vision": False,
}

CONVENIENT = {
    "any loaded model": "model = lms.llm(); print(model.identifier)",
    "a model by its key": f"model = lms.llm({LARGE!r}); print(model.identifier)",
    "a model for an hour": f"model = lms.llm({SMALL!r}, ttl=3600); print(model.identifier)",
    "an embedding model": "print(len(lms.embedding_model('vectors').embed('Hello')))",
    "two instances": f"""
        client = lms.get_default_client()
        one = client.llm.load_new_instance({SMALL!r})
        two = client.llm.load_new_instance({SMALL!r}, "second-llama")
        print(one.identifier, two.identifier)
    """,
    "unloading by handle": "model = lms.llm(); model.unload(); print(lms.list_loaded_models())",
    "information": "model = lms.llm(); print(model.get_info())",
    "an answer": "model = lms.llm(); print(model.respond('What is the meaning of life?'))",
    "a stream": """
        model = lms.llm()
        for fragment in model.respond_stream("What is the meaning of life?"):
            print(fragment.content, end="", flush=True)
        print()
    """,
    "a chat with settings and figures": """
        model = lms.llm()
        chat = lms.Chat("You are a philosopher.")
        chat.add_user_message("What is the meaning of life?")
        stream = model.respond_stream(chat, config={"temperature": 0.6, "maxTokens": 50})
        for fragment in stream:
            print(fragment.content, end="")
        result = stream.result()
        print(result.model_info.display_name, result.stats.predicted_tokens_count)
        print(result.stats.time_to_first_token_sec, result.stats.stop_reason)
    """,
    "many turns": """
        model = lms.llm()
        chat = lms.Chat("You are helpful.")
        for question in ("Hello?", "Who is there?"):
            chat.add_user_message(question)
            for fragment in model.respond_stream(chat, on_message=chat.append):
                print(fragment.content, end="")
        print(chat)
        assert [message.role for message in chat.messages] == ["system", *["user", "assistant"] * 2]
    """,
}

BOOK = """
    class Book(lms.BaseModel):
        title: str
        year: int
    result = AWAIT model.respond("Tell me about The Hobbit", response_format=Book)
    assert (result.structured, set(result.parsed)) == (True, {"title", "year"})
    assert result.parsed_as(Book).year == result.parsed["year"]
    print(result.parsed)
"""
CONVENIENT["a structured response"] = "model = lms.llm()\n" + textwrap.dedent(BOOK).replace("AWAIT ", "")

SCOPED = {
    "any loaded model": "model = AWAIT client.llm.model()",
    "a model by its key": f"model = AWAIT client.llm.model({LARGE!r})",
    "times to live": f"""
        one = AWAIT client.llm.model({SMALL!r}, ttl=3600)
        two = AWAIT client.llm.load_new_instance({SMALL!r}, ttl=7200)
    """,
    "two instances": f"""
        one = AWAIT client.llm.load_new_instance({SMALL!r})
        two = AWAIT client.llm.load_new_instance({SMALL!r}, "second-llama")
        AWAIT client.llm.unload(two.identifier)
        AWAIT one.unload()
    """,
    "unloading by handle": "model = AWAIT client.llm.model(); AWAIT model.unload()",
    "progress": f"""
        told = []
        model = AWAIT client.llm.load_new_instance({LARGE!r}, on_progress=lambda progress: told.append(progress))
        assert (told[-1], sorted(told)) == (1.0, told)
        told.clear()
        model = AWAIT client.llm.model({LARGE!r}, on_progress=told.append)
        assert told == [1.0]
    """,
    "load settings": f"""
        model = AWAIT client.llm.load_new_instance({LARGE!r}, config={{"contextLength": 2048, "gpu": {{"ratio": 0.5}}}})
        assert (AWAIT model.get_load_config()).context_length == 2048
        assert AWAIT model.get_context_length() == 2048
    """,
    "a structured response": "model = AWAIT client.llm.model()\n" + textwrap.dedent(BOOK),
    "an embedding model": "model = AWAIT client.embedding.model('vectors'); AWAIT model.embed(['a', 'b'])",
}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with the models of the pages, one of them loaded; only the environment names its address."""
    models: list[dict[str, Any]] = [
        {"key": SMALL, "preload": True, "engine": "scripted"},
        {"key": LARGE, "engine": "scripted"},
        {"key": "vectors", "kind": "embedding", "engine": "scripted"},
    ]
    reset_default_client()
    with Emulator(models) as running:
        monkeypatch.setenv(HOST_VARIABLE, running.address)
        yield running
    reset_default_client()


def run(program: str, **names: Any) -> None:
    """Run a program, which may await at its top level, as in `python -m asyncio`."""
    code = compile(textwrap.dedent(program), "program", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, {"lms": lms, **names})
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("name", CONVENIENT)
def test_programs_on_the_default_client_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(CONVENIENT[name])
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", SCOPED)
def test_programs_with_a_client_of_their_own_run(name: str) -> None:
    body = textwrap.indent(textwrap.dedent(SCOPED[name]).strip(), "    ")
    run("with lms.Client() as client:\n" + body.replace("AWAIT ", ""))


@pytest.mark.parametrize("name", SCOPED)
def test_programs_with_an_async_client_run(name: str) -> None:
    body = textwrap.indent(textwrap.dedent(SCOPED[name]).strip(), "    ")
    run("async with lms.AsyncClient() as client:\n" + body.replace("AWAIT", "await"))


def test_a_chat_bot_talks_until_the_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Emulator
) -> None:
    lines = iter(["Hello", "How are you?"])

    def read(_prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read)
    run("""
        model, chat = lms.llm(), lms.Chat("You are brief.")
        while True:
            try:
                line = input("You: ")
            except EOFError:
                break
            chat.add_user_message(line)
            print("Bot: ", end="")
            for fragment in model.respond_stream(chat, on_message=chat.append):
                print(fragment.content, end="", flush=True)
            print()
    """)
    assert capsys.readouterr().out.count("Bot: ") == 2
    assert len(server.predictions) == 2


async def test_information_is_printed_as_the_pages_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await send_result(socket, INFO)
        await send_result(socket, INFO)

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        print(await (await client.llm.model()).get_info())
    out = capsys.readouterr().out
    assert out.startswith('LlmInstanceInfo.from_dict({\n  "architecture": "qwen2",\n  "contextLength": 4096,\n')
    assert out.endswith('  "trainedForToolUse": true,\n  "type": "llm",\n  "vision": false\n})\n')
    assert eval(out, {"LlmInstanceInfo": lms.LlmInstanceInfo, "true": True, "false": False}).to_dict() == INFO


def test_the_default_client_may_be_configured_before_its_first_use_only(server: Emulator) -> None:
    lms.configure_default_client(server.address)
    assert lms.get_default_client().api_host == server.address
    for host in ("elsewhere", server.address):
        for change in (lms.configure_default_client, lms.get_default_client):
            with pytest.raises(lms.LMStudioClientError, match=f"the default client already uses {server.address}"):
                change(host)


def test_the_first_use_of_the_default_client_may_name_its_host(server: Emulator) -> None:
    assert lms.get_default_client(server.address) is lms.get_default_client()


def test_the_default_client_may_be_given_a_token_alone() -> None:
    lms.configure_default_client(api_token="sk-lm-abcdefgh:0123456789abcdefghij")
    assert lms.llm(SMALL).identifier == SMALL


def test_the_time_that_sync_clients_wait_can_be_set_for_all_of_them() -> None:
    assert lms.get_sync_api_timeout() == 60.0
    client = lms.Client()
    try:
        lms.set_sync_api_timeout(None)
        assert lms.get_sync_api_timeout() is None
        assert client._dispatcher.timeouts["idle_timeout"] is None
        assert lms.Client(idle_timeout=5)._dispatcher.timeouts["idle_timeout"] == 5
        assert lms.AsyncClient()._dispatcher.timeouts["idle_timeout"] == 60.0
    finally:
        lms.set_sync_api_timeout(60.0)


def test_a_wait_of_no_time_at_all_is_a_timeout(server: Emulator) -> None:
    lms.set_sync_api_timeout(0)
    try:
        assert lms.get_sync_api_timeout() == 0
        with pytest.raises(lms.LMStudioTimeoutError, match="idle_timeout expired") as caught:
            lms.list_loaded_models()
    finally:
        lms.set_sync_api_timeout(60.0)
    assert caught.value.timeout_name == "idle_timeout"
    assert [model.identifier for model in lms.list_loaded_models()] == [SMALL]
