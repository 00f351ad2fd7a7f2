"""The rest of what the newest release of the SDK can ask."""

from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.broad
CHAT, EMBEDDING = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
Step = Callable[..., Any]


def test_a_new_instance_gets_a_number(server: Emulator, run: Step) -> None:
    found = run(server, "instances")
    assert found["identifiers"] == [CHAT, "mine", f"{CHAT}:2"]
    assert found["context"] == 512
    assert found["info"]["ttlMs"] is None
    assert found["info"]["publisher"] == "scripted"
    assert "already exists" in found["duplicate"]


def test_any_loaded_model_can_be_had(server: Emulator, run: Step) -> None:
    found = run(server, "anyModel")
    assert found["none"] != "no error"
    assert found["same"]
    assert found["missing"]
    assert found["state"] == {"status": "idle", "queued": 0}


def test_this_client_sends_settings_as_the_sdk_does_and_rejects_the_same(server: Emulator, run: Step) -> None:
    found = run(server, "configs")
    sent = {
        "llm": [load.config for load in server.loads if load.key == CHAT][:-1],
        "embedding": [load.config for load in server.loads if load.key == EMBEDDING],
        "prediction": [prediction.config for prediction in server.predictions],
    }
    with lms.Client(server.address) as client:
        model = client.llm.load_new_instance(CHAT)
        uses: dict[str, Callable[[Any], Any]] = {
            "llm": lambda config: client.llm.load_new_instance(CHAT, config=config, ttl=None).unload(),
            "embedding": lambda config: client.embedding.load_new_instance(EMBEDDING, config=config).unload(),
            "prediction": lambda config: model.respond("Hello", config=config),
        }
        for kind, use in uses.items():
            theirs = iter(sent[kind])
            for tried in found[kind]:
                if tried["error"] == "no error":
                    use(tried["config"])
                    records = server.predictions if kind == "prediction" else server.loads
                    assert records[-1].config == next(theirs), tried
                else:
                    with pytest.raises(lms.LMStudioValueError):
                        use(tried["config"])
            assert list(theirs) == []


def test_a_reference_to_an_unloaded_model_is_stale(server: Emulator, run: Step) -> None:
    assert "unloaded" in run(server, "staleReference")


def test_a_model_loaded_just_in_time_makes_way_for_the_next(server: Emulator, run: Step) -> None:
    assert run(server, "makeWay") == {"ttlMs": 3_600_000, "embeddings": 0}


def test_a_load_is_aborted(server: Emulator, run: Step) -> None:
    found = run(server, "abortLoad")
    assert "abort" in found["message"].lower()
    assert found["loaded"] == 0


def test_tokens_are_counted_and_templates_applied(server: Emulator, run: Step) -> None:
    found = run(server, "tokens")
    assert found["tokens"] == found["count"] > 0
    assert "Hello there" in found["template"]
    assert found["base"]["temperature"] == 0.8


def test_images_are_seen_by_models_with_eyes(server: Emulator, run: Step) -> None:
    found = run(server, "images")
    assert found["content"] == "I see a picture."
    assert "does not support images" in found["error"]


def test_reasoning_is_separated_from_the_response(server: Emulator, run: Step) -> None:
    found = run(server, "reasoning")
    assert found["reasoningContent"] == "Let me see."
    assert found["nonReasoningContent"].strip() == "Done."


def test_errors_state_the_cause(server: Emulator, run: Step) -> None:
    found = run(server, "errors")
    assert "no-such-model" in found["unknown"]
    assert "no-such-model" in found["unload"]
    assert "unheard-of" in found["preset"]
    assert "It went wrong" in found["rule"]
    assert found["kind"] != "no error"
    assert 'Cannot find model "no-such-model"' in found["draft"]


def test_documents_are_parsed_and_searched(server: Emulator, run: Step) -> None:
    found = run(server, "documents")
    assert "Grass is green" in found["parsed"]
    assert found["found"] == ["Grass is green in spring."]
    assert "cannot be parsed" in found["error"]


SIZE = 1_000_000
"""The size of a scripted model. The official command line divides by it."""


def test_a_model_is_found_and_downloaded(server: Emulator, run: Step) -> None:
    found = run(server, "download")
    assert found["key"] == found["identifier"] == "not-yet-here"
    assert found["updates"] == [SIZE, SIZE]


def test_an_artifact_is_downloaded_as_the_command_line_does(server: Emulator, run: Step) -> None:
    found = run(server, "planDownload")
    assert found["plans"] == [[SIZE, "completed", "completed"], [0, "satisfied", "satisfied"]]
    assert found["events"] == [SIZE, SIZE, "finalizing"]
    assert "never-heard-of" in found["unknown"]
    assert found["identifier"] == "not-yet-here"


def test_the_form_of_a_download_is_chosen_as_the_command_line_does(server: Emulator, run: Step) -> None:
    found = run(server, "chooseDownload")
    assert found.pop("exact")
    assert "not-yet-here" in found.pop("catalog")
    assert found == {"again": "startNewDownload", "downloadAction": "none", "version": 2}


def test_system_endpoints(server: Emulator, run: Step) -> None:
    found = run(server, "system")
    assert found["flags"] == ["x"]
    assert found["version"]["version"] == found["info"]["version"]


def test_the_log_streams(server: Emulator, run: Step) -> None:
    found = run(server, "logs")
    assert found["llm.prediction.input"] == found["llm.prediction.output"] == [CHAT]
    assert [line.partition(": ")[2] for line in found["runtime.log"]] == ["loading", "loaded"] * 2 + ["unloaded"]
    assert {line.rpartition(": ")[2] for line in found["server.log"]} >= {"llm.predict", "llm.loadModel"}


def test_the_tools_of_a_plugin_are_called(plugin_server: Emulator, run: Step) -> None:
    found = run(plugin_server, "pluginTools")
    names = ["add", "nothing", "meet", "report", "fail", "wait"]
    assert [tool["name"] for tool in found["tools"]] == names
    assert found["tools"][0] == {
        "type": "remoteTool",
        "name": "add",
        "description": "Add two numbers.",
        "pluginIdentifier": "mcp/sums",
    }
    assert 'Failed to parse arguments for tool "add"' in found["checked"]
    assert (found["added"], found["nothing"], found["met"]) == (5, None, ["a", "b"])
    assert found["failed"].startswith("nothing there")
    assert "Failed to parse arguments for tool add: a: " in found["invalid"]
    assert "stop it" in found["aborted"]
    assert found["reports"] == [["status", "adding"], ["warning", "rounded"]]
    assert 'no tool "unheardOf"' in found["unknown"]
    assert found["disposed"] == found["afterwards"] == "Session disposed by client."
    assert "mcp/unheard-of" in found["unknownPlugin"]
    states = [(call.tool, call.state) for call in plugin_server.tool_calls]
    assert states.count(("wait", "aborted")) == 2


def test_a_model_calls_the_tools_of_a_plugin(plugin_server: Emulator, run: Step) -> None:
    assert run(plugin_server, "pluginToolsInAct")[-1] == "The result is 5."


def test_a_generator_responds_in_place_of_a_model(plugin_server: Emulator, run: Step) -> None:
    found = run(plugin_server, "generator")
    assert found["fragments"] == found["content"]
    assert (found["reasoningContent"], found["nonReasoningContent"].strip()) == ("Let me see.", "Done.")
    assert found["messages"][-1] == "The result is 5."
    assert found["cancelled"] == [["One"], "One"]
    assert "It went wrong" in found["failed"]
    assert "me/nobody" in found["unknown"]
    assert "not a generator" in found["noGenerator"]
    assert "has no tools" in found["noTools"]


def test_a_token_authenticates(guarded_server: Emulator, run: Step) -> None:
    assert run(guarded_server, "token", TOKEN) == {"loaded": 0}


@pytest.mark.parametrize("token", [(), ("sk-lm-abcdefgh:9999999999abcdefghij",)])
def test_without_the_token_nobody_comes_in(guarded_server: Emulator, run: Step, token: tuple[str, ...]) -> None:
    error = "Failed to authenticate"
    assert error in run(guarded_server, "rejected", *token, complaint=error)
