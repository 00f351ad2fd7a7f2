"""One model on several hosts: choose a host for each call, and another one if that fails.

`models.py` has the models that take the place of a model on one server. `hosts.py` has the hosts of a model, `host.py`
asks them what they have and remembers it, `prompt_index.py` knows what is in their prompt caches, `choice.py` is the
policy, a pure function, and `failover.py` moves an operation from host to host.
"""
