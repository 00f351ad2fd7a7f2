"""What the whole package uses, and what knows nothing of LM Studio's protocol."""
