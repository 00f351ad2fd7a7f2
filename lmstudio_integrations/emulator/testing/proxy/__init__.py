"""A proxy between clients and a server. It passes everything on, unless a fault is due; who observes it can record.

`wire_items.py` cuts what passes into heads and frames, and names the points of the conversation. `proxy.py` forwards
them, and breaks its connections. `injections.py` decides when a fault happens, `actions.py` has what then happens,
and `replacements.py` what is sent. `fault_table.py` names all faults, `fault_options.py` reads what users choose, and
`fault_proxy.py` runs one fault for a test. The proxy works in front of the emulator and of LM Studio alike, for
clients in any language.

A scripted model does the same without a proxy: `engines/scripted/playback.py` decides when, and
`server/connection_handler.py` does it, with the same actions.
"""
