"""The models: which exist, which are loaded, and when one is loaded, evicted or expires."""
