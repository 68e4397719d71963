"""Generators that a developer runs. They are not in the wheel."""
