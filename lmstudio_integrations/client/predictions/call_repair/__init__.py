"""Mends tool calls that do not fit: first without the model, where exactly one reading fits, else by asking it."""
