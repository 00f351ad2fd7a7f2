"""The command line `lmsi`, whose long name is `lmstudio-integrations`.

_main.py         runs the command in `sys.argv`, and says how it ended
_app.py          the commands, each imported on first use from the file of its name
_common.py       what several commands share; `_formatting.py` is how they write
"""
