"""Earlier thoughts in a conversation: what is sent of them, and what the chat template of an instance does with them.

The wire has no place for a thought, so it goes back as text between its tags, and the template decides
(docs/protocol.md#earlier-reasoning). `sent.py` writes the texts. `replay.py` knows the tags of an instance, measures
its template, and makes it keep what it would omit.
"""
