"""Handles of decision models. `client.decision` imports them on first use.

asynchronous.py    for coroutines; `sync.py`, for threads, is written from it
"""
