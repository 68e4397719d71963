"""How long the texts of a job may be: the server refuses longer ones.

Without imports, so that `headway run` starts fast.
"""

NAME_LENGTH = 256
"""Characters of a job's name and of its invoker."""

UNIT_LENGTH = 32

LABEL_LENGTH = 256
"""Characters of the value of a label."""
