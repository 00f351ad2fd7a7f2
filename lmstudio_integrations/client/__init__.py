"""The native client. It knows no framework; `sync.py` and `asynchronous.py` are what users see."""
