"""One model on several hosts: choose a host for each call, and another one if that fails.

`choice.py` is the policy, a pure function. `host.py` asks the hosts what they have, and remembers it. `pool.py`
moves the operations of a handle between the hosts. Below it are the operations of a model on one host.
"""
