"""What the adapters of all frameworks share. Knows no framework: translation to and from one is in its own package.

settings.py, generation_settings.py   the fields, and what a call changes of them
calls.py                              the settings of one call become its `Plan`
runtime.py                            the models that an adapter uses, on which servers
conversation.py, tool_settings.py     what is said and offered, on its way to the wire
finished_response.py, attempts.py     what is reported of the response; how one that does not fit is corrected
"""
