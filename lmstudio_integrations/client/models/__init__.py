"""Models on a server: finding, loading and knowing them, and taking turns."""
