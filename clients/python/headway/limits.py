"""The longest texts of a job. The server refuses longer ones.

This module imports nothing, so that `headway run` starts fast.
"""

NAME_LENGTH = 256
"""Characters of a job's name and of its invoker."""

UNIT_LENGTH = 32

LABEL_LENGTH = 256
"""Characters of the value of a label."""
