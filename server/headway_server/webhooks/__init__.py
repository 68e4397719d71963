"""CloudEvents to other services: an outbox in the database, and delivery to each receiver.

It reads committed jobs; nothing depends on it but `app`.
"""
