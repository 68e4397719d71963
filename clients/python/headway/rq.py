"""The import path of `headway.integrations.rq`, also for `rq worker --worker-class headway.rq.Worker`."""

from headway.integrations.rq import Runs, SimpleWorker, Tracked, Worker, current_job

__all__ = ["Runs", "SimpleWorker", "Tracked", "Worker", "current_job"]
