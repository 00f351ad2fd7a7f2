"""A proxy between clients and a server. It passes everything on, unless a fault is due; who observes it can record.

`wire_items.py` cuts what passes into heads and frames, and names the points of the conversation. `proxy.py` forwards
them, `actions.py` has what may happen instead, and `messages.py` what is sent in the place of frames. `fault_table.py`
names all faults, `fault_choices.py` reads what users choose, and `fault_proxy.py` runs one fault for a test. The proxy
works in front of the emulator and of LM Studio alike, for clients in any language.
"""
