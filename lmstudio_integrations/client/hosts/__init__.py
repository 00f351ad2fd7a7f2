"""One model on several hosts: choose a host for each call, and another one if that fails.

`models.py` has the models that take the place of a model on one server. `hosts.py` has the hosts of a model, the policy
by which one is chosen, a pure function, and what moves an operation from host to host. `host.py` remembers what each
has, and asks it.
"""
