"""The release. An installation has metadata with the same version, but a copy of the sources has none."""

__version__ = "0.1.0"
"""The build reads it from here."""
