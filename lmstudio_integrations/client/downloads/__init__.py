"""Models to download: a search, the options of each result, and a download with its progress.

downloading.py     searches and downloads
asynchronous.py    for coroutines; `sync.py`, for threads, is written from it

`client.repository` imports it on first use; nothing else of the client knows it.
"""
