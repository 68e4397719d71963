"""Jobs in the database: models, migrations, queries and connections, for every engine.

No other package contains SQL.
"""
