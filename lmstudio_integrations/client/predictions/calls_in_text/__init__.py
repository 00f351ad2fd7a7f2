"""Tool calls that a server left in the text of a response, and the repair of calls that do not fit their tools.

- `parser.py` finds calls in a text that grows, `call_parser.py` reads one; `formats.py` has the markers of the families
  of models, and `lenient_json.py` reads values. All pure: text goes in, calls and events come out.
- `call_arguments.py` mends what has one reading, `call_repair.py` makes the request for the rest.
- `read_calls.py` and `repair_calls.py` are the middlewares that do this with a prediction. Nothing else knows this
  folder.
"""
