"""What the adapters of all frameworks share. Knows no framework: translation to and from one is in its own package.

The names follow what happens to a request: settings, request, response.

settings.py                     the fields that every object has: the server, the model
settings_generation.py          how to generate, `temperature` among them, and what a call changes of its settings
settings_embedding.py, settings_decision.py, settings_toolkit.py
                                the fields of embeddings, of rerankers and classifiers, of toolkits
settings_types.py, settings_checks.py
                                the types of fields, and what is checked before pydantic sees a value
request.py                      the settings of one call become its `Plan` and its `Prediction`
request_model.py                the model that it goes to, and on which servers
request_messages.py, request_tools.py, request_effort.py
                                what is said and offered, and how much to reason, on the way to the wire
response.py                     what is reported of the finished response
response_attempts.py            how one that does not fit is corrected
"""
