"""Budgets of work: how many calls, bytes, wake-ups and writes one call or token may cost. See `budgets.toml`."""
