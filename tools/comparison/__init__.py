"""Writes `docs/guides/comparison.md`: the packages of others, and a server of their HTTP protocols for them."""
