"""Servers that tell receivers, and making them send the webhooks that are due."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headway_server.settings import read
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.receiver import SECRET

Start = Callable[..., RunningApp]


def toml(*tables: dict[str, object]) -> str:
    """A settings file with these tables of webhooks."""
    lines = []
    for table in tables:
        lines.append("[[webhook]]")
        for key, item in table.items():
            if isinstance(item, dict):
                item = "{" + ", ".join(f"{name} = {json.dumps(text)}" for name, text in item.items()) + "}"
            else:
                item = json.dumps(item)
            lines.append(f"{key} = {item}")
    return "\n".join(lines)


@contextmanager
def starting(database: str, folder: Path) -> Iterator[Start]:
    """Starts servers that tell the receivers of these tables; `private`: on this machine too."""
    with ExitStack() as running:

        def start(*tables: dict[str, object], private: bool = True, arguments: tuple[str, ...] = ()) -> RunningApp:
            config = folder / "headway.toml"
            config.write_text(
                toml(*[table if "secret_file" in table else {"secret": SECRET, **table} for table in tables])
            )
            # One at a time: a SQLite file is one server's.
            running.close()
            allow = ["--allow-private-webhooks"] if private else []
            settings = read(["--config", str(config), *allow, *arguments], {})
            return running.enter_context(RunningApp(database, limits=settings.limits, settings=settings))

        yield start


def deliver(app: RunningApp, seconds: float = 1) -> None:
    """Let time pass, and the server send what is due."""

    async def work() -> None:
        await asyncio.gather(*[delivery.deliver() for delivery in app.app.webhooks.deliveries])

    app.clock.forward(seconds)
    app.run(work())


@contextmanager
def delivering(app: RunningApp, seconds: float = 1) -> Iterator[None]:
    """As `deliver`, but beside what the test does meanwhile."""

    async def begin() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(delivery.deliver()) for delivery in app.app.webhooks.deliveries]

    async def end() -> None:
        await asyncio.gather(*tasks)

    app.clock.forward(seconds)
    tasks = app.run(begin())
    yield
    app.run(end())


def finish_jobs(caller: Caller, name: str, count: int) -> list[str]:
    """Create so many jobs of this name and finish them, in their order; their ids."""
    job_ids = [caller.create(name=name).id for _ in range(count)]
    for job_id in job_ids:
        caller.finish(job_id)
    return job_ids


def execute(app: RunningApp, sql: str) -> None:
    """Run a statement in a commit of the server's."""
    app.run(app.app.writer.run_task(lambda: app.app.store.database.execute_sql(sql) and None))


def waiting(app: RunningApp) -> int:
    """How many webhooks are in the outbox."""

    def count() -> int:
        ((found,),) = app.app.store.database.execute_sql("SELECT COUNT(*) FROM notice").fetchall()
        return int(found)

    return app.run(app.app.readers.read(count))
