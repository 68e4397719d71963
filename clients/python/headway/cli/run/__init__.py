"""`headway run` and `headway pipe`: they report how far a program or a pipe is, without changing it."""
