"""The Headway server: jobs over gRPC, stored through peewee. docs/architecture.md shows its components."""
