"""The operations on jobs, for every transport: commits, reads, watches, and changes by time alone.

Rules of a single job are in `domain`.
"""
