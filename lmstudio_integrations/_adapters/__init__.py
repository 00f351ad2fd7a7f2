"""What the adapters of all frameworks share. Knows no framework: translation to and from one is in its own package."""
