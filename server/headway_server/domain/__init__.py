"""The rules of a job: what it is, what can be asked of it, and what follows.

Pure: no protobuf, database, event loop or clock. The time is given as an argument.
"""
