"""Calls of every public surface against a server whose packets are malformed, in search of raw exceptions.

`python -m tests.fuzz --calls 10000 --seed 1` runs many and prints figures; the normal test run makes a few hundred.
"""
