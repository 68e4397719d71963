"""The same cases for the clients of every language; README.md tells how it works."""
