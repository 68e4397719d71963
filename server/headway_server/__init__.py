"""The Headway server: jobs over gRPC, durable through peewee. docs/architecture.md draws the house."""
