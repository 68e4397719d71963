"""The RPCs: the call guard around every method, conversion from and to protobuf, and the gRPC server.

Every transport calls the methods of `servicer` and `operations` through the guard.
"""
