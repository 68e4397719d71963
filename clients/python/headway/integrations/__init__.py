"""Jobs for tqdm bars, Celery tasks and RQ jobs. Each module needs the library that it is named after."""
