"""The rows of the card, a file for each; this is their order."""

from lmstudio_integrations.client.certify.asking import Row
from lmstudio_integrations.client.certify.rows.tools import TOOLS

ROWS: tuple[Row, ...] = (TOOLS,)

PROMPT_TOKENS, PREDICTED_TOKENS = 90_000, 12_000
"""The most tokens that all rows together may use."""
