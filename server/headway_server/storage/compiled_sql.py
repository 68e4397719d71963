"""SQL that peewee compiles once and the store reuses: compiling costs more than running it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar  # Any: what a database driver returns has no other type

import peewee
from peewee import Expression, Model, Query, Value
from peewee import __exception_wrapper__ as exception_wrapper  # type: ignore[attr-defined]  # its stubs lack it

from headway_server.domain.job import Key
from headway_server.storage import rows

T = TypeVar("T")


class Statement:
    """A statement that peewee compiled once. It takes its parameters by name from each row."""

    def __init__(self, database: peewee.Database, query: Query) -> None:
        self.sql, self.names = database.get_sql_context().sql(query).query()

    def parameters(self, row: Mapping[str, rows.SqlValue]) -> tuple[rows.SqlValue, ...]:
        return tuple([row[name] for name in self.names])

    def parameters_of_many(self, given: Sequence[Mapping[str, rows.SqlValue]]) -> list[rows.SqlValue]:
        """The parameters of a statement that was compiled for this many rows at once."""
        names = self.names[: len(self.names) // len(given)]
        return [row[name] for row in given for name in names]


def named(name: str) -> Value:
    """A parameter that `Statement` fills in by this name."""
    return Value(name, converter=False)


def is_key(model: type[Model], id_column: str) -> Expression:
    columns = model._meta.columns
    condition: Expression = (columns["session_hash"] == named("session_hash")) & (columns[id_column] == named("id"))
    return condition


def to_power_of_two(items: Sequence[T]) -> Sequence[T]:
    """The items, with the last one repeated until their number is a power of two, so that few statements are needed."""
    count = 1 << (len(items) - 1).bit_length()
    return items if count == len(items) else [*items, *[items[-1]] * (count - len(items))]


def any_of(conditions: Sequence[Expression]) -> Expression:
    """The OR of these conditions, as a balanced tree: SQLite's parser accepts at most 100 nested parentheses."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    either: Expression = any_of(conditions[:middle]) | any_of(conditions[middle:])
    return either


def belongs(model: type[Model], key: Key) -> Expression:
    """The condition for rows of another table that belong to a job."""
    columns = model._meta.columns
    condition: Expression = (columns["session_hash"] == key[0]) & (columns["job_id"] == key[1])
    return condition


def fetch(database: peewee.Database, sql: str, parameters: Sequence[rows.SqlValue]) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    # SQLite still reads while rows are fetched: turn an error of the disk into peewee's error here too.
    with exception_wrapper:
        found: list[tuple[Any, ...]] = database.execute_sql(sql, parameters).fetchall()
    return found
