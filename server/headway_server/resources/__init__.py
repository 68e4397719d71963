"""Resources that callers share (memory, threads, the event loop, time), and the limits of each caller's share.

Nothing here knows about jobs.
"""
