"""The HTTP transport: the Connect protocol, JSON, the page, health and metrics.

It calls the methods of `rpc`, and never the store.
"""
