"""The operations on jobs, independent of any transport: commits, reads, watches, and what time alone changes.

Rules of a single job are in `domain`.
"""
