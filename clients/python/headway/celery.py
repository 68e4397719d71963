"""The import path of `headway.integrations.celery` for apps."""

from headway.integrations.celery import current_job, track

__all__ = ["current_job", "track"]
