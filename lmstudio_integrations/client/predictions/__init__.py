"""Predictions: what `respond`, `complete` and `act` request, and how the response is read.

A handle (`client/api/`) or an adapter (`_adapters/request.py`) makes a `Plan`; `PredictingModel.predict` makes a
`Prediction` of it, and whoever reads that makes it send the request, with a `ModelOperation`.

plan.py                  what is requested: a `Plan`
prediction.py            its run: a `Prediction`, which may ask more than once
middleware.py, entries/  what is done beside sending and reading: one file and one line each
language_model.py        the flows of a handle; `tool_loop/` is `act`
calls_in_text/           calls that a server left in the text, and their repair
"""
