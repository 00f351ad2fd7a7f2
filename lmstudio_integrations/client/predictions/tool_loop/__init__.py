"""The tool loop of `act`."""
