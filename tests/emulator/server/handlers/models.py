"""The models of the emulator for tests of the handlers."""

from lmstudio_integrations.emulator import ModelEntry, Preset

TEXT = "The sky is blue.\n\nGrass is green.\n\nSnow is white.\n"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

CHAT = ModelEntry(
    key="chat",
    aliases=("talk",),
    vision=True,
    rules=(
        {"when": {"tools": ["add"]}, "then": [{"tool": "add", "arguments": {"a": 1}, "id": "7"}]},
        {"when": {"image": True}, "then": [{"text": "A picture."}]},
        {"when": {"last": "^Nothing"}, "then": []},
    ),
)
BLIND = ModelEntry(key="blind", params="1B", quantization=("Q4_K_M", 4))
VECTORS = ModelEntry(key="vectors", kind="embedding", embedding_length=8)
ABSENT = ModelEntry(key="absent", downloaded=False, display_name="Not here", size_bytes=10)
PRESET = Preset(
    identifier="@me/brief", name="Brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 1}}
)
