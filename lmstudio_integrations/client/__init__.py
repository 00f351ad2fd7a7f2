"""The native client. It knows no framework.

Its rooms, from the users down to the wire:

    api/                        what users see: clients, handles, streams, each method a flow that is run; the adapters
                                enter below, at `predictions/`
    hosts/                      one model on several hosts
    predictions/, embeddings.py what is requested of a model, and how the response is read
    models/, files/             which model it is, loaded or found; what is uploaded for it
    transport/                  calls, connections, sockets, and who waits for them
"""
