"""The real client and the real server in one thread, on a clock and a network that a seed decides.

`loop.py` has the event loop with virtual time, `network.py` the network in memory, `world.py` puts servers and clients
into them. `program.py` makes the program of a seed; `python -m tests.simulation` plays it.
"""
