"""Jobs in the database: models, migrations, queries and connections, for every database.

Except for the outbox of `webhooks`, no other package contains queries.
"""
