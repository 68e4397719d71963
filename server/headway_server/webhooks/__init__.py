"""Webhooks: CloudEvents for other services, with an outbox in the database and a delivery for each receiver.

It reads committed jobs. Only `app` and the settings depend on it.
"""
