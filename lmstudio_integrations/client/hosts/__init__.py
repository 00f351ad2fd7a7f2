"""One model on several hosts: choose a host for each call, and another one if that fails.

`choice.py` is the policy, a pure function. `host.py` asks the hosts what they have, and remembers it. `route.py` is the
way of one operation over the hosts, `pool.py` has the hosts of a handle and its operations, `handles.py` makes such
handles. Below them are the operations of a model on one host.
"""
