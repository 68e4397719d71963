"""The rules of a job: what it is, what can be asked of it, and what follows.

Pure: no protobuf, no database, no event loop, no clock. Callers pass the time as an argument.
"""
