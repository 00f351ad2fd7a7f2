"""The API that users call: clients, their namespaces, model handles and streams, for threads and for coroutines."""
