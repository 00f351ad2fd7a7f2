"""The models: which exist, and which are loaded.

`catalog.py` has the entries. `registry.py` loads them, refuses to, evicts and unloads; `instance.py` is one that is
loaded, with its idle TTL, its slots and its users. `device.py` is where that is: this machine. `cancel_scope.py` ends
work from outside, and `clock.py` is the time of all this, which tests move. `request_log.py` has the records of what
happened, which tests read. `devices.py`, linked machines and memory, and `plugins.py`,
functions as tools, are leaves.
"""
