"""The spool: reports and calls that could not be delivered, on disk, and what sends them later."""
