"""What callers share: memory, threads, the event loop and time, and the bounds on how much of them each may take.

Nothing here knows jobs.
"""
