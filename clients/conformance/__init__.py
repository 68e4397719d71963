"""The same cases for the clients of every language; README.md describes it."""
