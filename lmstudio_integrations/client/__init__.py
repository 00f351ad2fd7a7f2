"""The native client. It knows no framework; `api/` is what users see."""
