"""Models on a server: which one a handle means, and how it is found, loaded and known.

model.py       a `Model`, and a `ModelOperation` on it with its attempts
loading.py     finds or loads the instance, with `load_steps.py` around a load
state.py       what is known of it, and of all models of the server
queries.py     what the server is asked about models
planning.py    what fits into the memory, and `fitting.py` the policies that make room for it
"""
