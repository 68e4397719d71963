"""Metrics for Prometheus. They contain no session and no job."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from google.rpc import code_pb2
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.responses import Response

from headway_server.resources.call_statistics import CallStatistics, Histogram
from headway_server.resources.loop_monitor import LoopMonitor
from headway_server.service.commit_writer import CommitWriter
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.database import Engine

LABELS = ("version", "database")

CALL_LABELS = ("door", "service", "method")  # plain-words: ok, labels are the interface


class Metrics(Collector):
    """Reads the counts when metrics are requested."""

    def __init__(
        self,
        version: str,
        engine: Engine,
        call_statistics: Mapping[tuple[str, str], CallStatistics],
        hub: WatchHub,
        writer: CommitWriter,
        loop_monitor: LoopMonitor,
        connections: Callable[[], int],
        ready: Callable[[], bool],
        log_lines_dropped: Callable[[], int],
        refused: Callable[[], int],
    ) -> None:
        self._version = version
        self._engine = engine
        self._call_statistics = call_statistics
        self._hub = hub
        self._writer = writer
        self._loop_monitor = loop_monitor
        self._connections = connections
        self._ready = ready
        self._log_lines_dropped = log_lines_dropped
        self._refused = refused
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def response(self) -> Response:
        """All metrics."""
        headers = {"cache-control": "no-store", "content-type": CONTENT_TYPE_PLAIN_0_0_4}
        return Response(generate_latest(self._registry), headers=headers)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """The metrics, for the registry."""
        info = GaugeMetricFamily("headway_info", "The version that runs, and its kind of database", labels=LABELS)
        info.add_metric((self._version, self._engine.name.partition(":")[0]), 1)
        yield info
        yield from self._calls()
        refused = "gRPC calls that were refused in the call queue because too many waited"
        yield CounterMetricFamily("headway_calls_refused", refused, value=self._refused())
        yield _gauge("headway_ready", "Whether the server accepts calls and its database answers", self._ready())
        yield _gauge("headway_watches", "Watches and long polls that are open", self._hub.watches)
        yield _gauge("headway_http_connections", "Connections to the HTTP port", self._connections())
        yield _gauge("headway_writes_waiting", "Calls that wait for their commit", self._writer.waiting)
        yield _gauge("headway_write_load", "How close the waiting calls are to their limits, 0 to 1", self._writer.load)
        yield _histogram("headway_commit_seconds", "How long commits took", self._writer.commit_seconds)
        yield _histogram("headway_commit_calls", "Calls that shared a commit", self._writer.commit_calls)
        monitor = self._loop_monitor
        yield _histogram("headway_event_loop_lag_seconds", "How late the event loop ran", monitor.lag_seconds)
        yield _gauge("headway_event_loop_lag_max_seconds", "The longest lag since the start", monitor.worst_lag)
        yield _gauge(
            "headway_event_loop_busy_lag_max_seconds",
            "The longest lag since the start in which the server itself was computing",
            monitor.worst_busy_lag,
        )
        lines = self._log_lines_dropped()
        yield CounterMetricFamily("headway_log_lines_dropped", "Log lines that could not be written", value=lines)
        yield from self._files()

    def _calls(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        ended = CounterMetricFamily("headway_calls", "Calls that ended, by their code", labels=(*CALL_LABELS, "code"))
        seconds = HistogramMetricFamily("headway_call_seconds", "How long calls took", labels=CALL_LABELS)
        for (transport, name), statistics in self._call_statistics.items():
            service, _, method = name.rpartition(".")
            labels = (transport, service, method)
            for code, number in statistics.codes.items():
                ended.add_metric((*labels, code_pb2.Code.Name(code)), number)
            if statistics.codes:
                seconds.add_metric(labels, _buckets(statistics.seconds), statistics.seconds.total)
        yield ended
        yield seconds

    def _files(self) -> Iterator[GaugeMetricFamily]:
        if self._engine.shared:
            return
        size = GaugeMetricFamily("headway_database_bytes", "Size of SQLite's files", labels=("file",))
        for file, suffix in (("database", ""), ("wal", "-wal")):
            try:
                size.add_metric((file,), Path(f"{self._engine.database.database}{suffix}").stat().st_size)
            except FileNotFoundError:
                size.add_metric((file,), 0)
        yield size


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    found, so_far = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        found.append(("+Inf" if bound == float("inf") else str(float(bound)), float(so_far)))
    return found


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, _buckets(histogram), histogram.total)
