"""What an attacker sends: each function here does one thing again and again, until the process is ended.

`python -m tests.faults.attacks NAME GRPC_ADDRESS HTTP_ADDRESS` runs one of them; `ATTACKS` names them all.
"""

import gzip
import itertools
import json
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import grpc
from google.protobuf import struct_pb2
from hyperframe.frame import SettingsFrame

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http import Client, enveloped
from tests.support.http2 import Connection, call_headers, prefixed

FAT, LARGE, RESULTS, CHURN = "attacked-fat", "attacked-large", "attacked-results", "attacked-churn"
"""Sessions that `prepare` fills."""

FAT_JOBS = 500
LARGE_JOBS = 9_900
RESULT_JOB = f"{7:032x}"

PAUSE = 0.05
"""Seconds between two rounds of an attack that the server answers at once."""

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]

JOBS = "/headway.v1.JobService/"

Attack = Callable[[str, str], None]


def stub(address: str) -> JobServiceStub:
    """A channel with a connection of its own."""
    return JobServiceStub(grpc.insecure_channel(address, OWN_CONNECTION))


def prepare(address: str) -> None:
    """Jobs for the attacks to work on."""
    jobs = stub(address)
    wide = {f"key-{number:02}": "v" * 250 for number in range(64)}
    for number in range(FAT_JOBS):
        jobs.CreateJob(pb.CreateJobRequest(session_id=FAT, job_id=f"{number:032x}", labels=wide, name="n" * 256))
    fattening = [
        pb.StreamProgressRequest(
            reports=[
                pb.ReportProgressRequest(
                    session_id=FAT, job_id=f"{number:032x}", part=f"{part:0128}", progress=1, sequence=1
                )
                for part in range(256)
            ]
        )
        for number in range(FAT_JOBS)
    ]
    for _ in jobs.StreamProgress(iter(fattening)):
        pass
    for start in range(0, LARGE_JOBS, 100):
        some = [
            jobs.CreateJob.future(pb.CreateJobRequest(session_id=LARGE, name=f"job {number}"))
            for number in range(start, min(start + 100, LARGE_JOBS))
        ]
        for creation in some:
            creation.result()
    jobs.CreateJob(pb.CreateJobRequest(session_id=RESULTS, job_id=RESULT_JOB))
    value = struct_pb2.Value(string_value="x" * 1_000_000)
    jobs.FinishJob(pb.FinishJobRequest(session_id=RESULTS, job_id=RESULT_JOB, results=value))


def rounds() -> Iterator[int]:
    """For ever, with a pause between two."""
    for number in itertools.count():
        yield number
        time.sleep(PAUSE)


JSON_BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "text": ("GetJob", lambda: b'{"sessionId":"' + b'\\"' * 1_900_000),
    "nested": ("GetJob", lambda: b'{"sessionId":' + b"[" * 3_900_000),
    "lists in a text": ("GetJob", lambda: b'{"sessionId":' + b"[]," * 1_300_000 + b"1}"),
    "lists": ("FinishJob", lambda: b'{"results":[' + b"[]," * 1_200_000 + b"[]]}"),
    "numbers": ("FinishJob", lambda: b'{"results":[' + b"1," * 1_900_000 + b"1]}"),
    "paths": ("UpdateJob", lambda: b'{"updateMask":"' + b"a," * 1_900_000 + b'a"}'),
    "names of an enum": ("ListJobs", lambda: b'{"statuses":[' + b'"",' * 1_200_000 + b'""]}'),
    "texts": ("SetVariables", lambda: b'{"remove":[' + b'"",' * 1_200_000 + b'""]}'),
    "objects": (
        "SetVariables",
        lambda: b'{"variables":{' + b",".join(b'"%d":{}' % number for number in range(300_000)) + b"}}",
    ),
    "not JSON": ("GetJob", lambda: b'{"sessionId":"' + b"x" * 3_900_000),
    "unknown field": ("GetJob", lambda: b'{"' + b"x" * 3_900_000 + b'":1}'),
}
"""Bodies of four megabytes that are a few kilobytes once compressed, each with the method that it is for."""


def packed_json_bomb(name: str) -> tuple[str, bytes]:
    """The method, and the body, compressed."""
    method, body = JSON_BOMBS[name]
    return method, gzip.compress(body(), 9)


class WideRequests(NamedTuple):
    """Requests of millions of tiny things."""

    paths: pb.UpdateJobRequest
    details: pb.FailJobRequest
    values: pb.FinishJobRequest


def wide_requests() -> WideRequests:
    paths = pb.UpdateJobRequest(session_id="s", job=job_pb2.Job(id="0" * 32))
    paths.update_mask.paths.extend([""] * 1_900_000)
    failing = pb.FailJobRequest(session_id="s", job_id="0" * 32)
    for _ in range(100_000):
        failing.error.details.add()
    empty = pb.FinishJobRequest(session_id="s", job_id="0" * 32)
    empty.results.list_value.values.extend([struct_pb2.Value()] * 1_900_000)
    return WideRequests(paths, failing, empty)


def json_bombs(_: str, http: str) -> None:
    """The bodies, one after the other."""
    packed = [packed_json_bomb(name) for name in JSON_BOMBS]
    client = Client(http)
    for number in rounds():
        method, body = packed[number % len(packed)]
        with suppress(OSError):
            client.call(method, body, content_encoding="gzip")


def wide_messages(address: str, _: str) -> None:
    """Protobuf messages of millions of tiny things, and ids of four megabytes."""
    jobs = stub(address)
    long = "a" * 3_900_000
    wide = wide_requests()
    for number in rounds():
        with suppress(grpc.RpcError):
            match number % 5:
                case 0:
                    jobs.GetJob(pb.GetJobRequest(session_id="s", job_id=f"{long}{number}"), timeout=20)
                case 1:
                    jobs.GetJob(pb.GetJobRequest(session_id=f"{long}{number}", job_id="0" * 32), timeout=20)
                case 2:
                    jobs.UpdateJob(wide.paths, timeout=20)
                case 3:
                    jobs.FailJob(wide.details, timeout=20)
                case 4:
                    jobs.FinishJob(wide.values, timeout=20)


def fat_lists(address: str, _: str) -> None:
    """Eight lists of a thousand fat jobs at a time."""
    jobs = stub(address)
    for _number in rounds():
        calls = [jobs.ListJobs.future(pb.ListJobsRequest(session_id=FAT, page_size=1000), timeout=20) for _ in range(8)]
        for call in calls:
            with suppress(grpc.RpcError):
                call.result()


def large_snapshots(address: str, _: str) -> None:
    """Sixty watchers open a session of 9,900 jobs, read a little, and go away."""
    jobs = stub(address)
    for _number in rounds():
        watches = [jobs.WatchJobs(pb.WatchJobsRequest(session_id=LARGE), timeout=10) for _ in range(60)]
        for watch in watches:
            with suppress(grpc.RpcError, StopIteration):
                for _seen in range(20):
                    next(watch)
        for watch in watches:
            watch.cancel()


def unread_answers(address: str, _: str) -> None:
    """Six hundred answers of a megabyte on a connection whose window is closed."""
    request = prefixed(pb.GetResultsRequest(session_id=RESULTS, job_id=RESULT_JOB).SerializeToString())
    for _number in rounds():
        with suppress(OSError), Connection(address) as connection:
            connection.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
            for _call in range(600):
                stream = connection.open(call_headers(f"{JOBS}GetResults"))
                connection.write(stream, request)
            connection.answer(within=30)


def unread_watches(address: str, _: str) -> None:
    """Nine hundred watches that nobody reads, while jobs of their session come and go."""
    request = prefixed(pb.WatchJobsRequest(session_id=CHURN).SerializeToString())
    jobs = stub(address)
    for _number in rounds():
        with suppress(OSError, grpc.RpcError), Connection(address) as connection:
            connection.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
            for _call in range(900):
                connection.write(connection.open(call_headers(f"{JOBS}WatchJobs")), request)
            for _job in range(2_000):
                job = jobs.CreateJob(pb.CreateJobRequest(session_id=CHURN), timeout=20)
                jobs.ClearJob(pb.ClearJobRequest(session_id=CHURN, job_id=job.id), timeout=20)


def hoarded_watches(address: str, _: str) -> None:
    """Twenty connections of a thousand watches each, under sessions that do not exist."""
    while True:
        connections = []
        for _connection in range(20):
            with suppress(OSError):
                connection = Connection(address)
                connections.append(connection)
                for _call in range(1000):
                    request = pb.WatchJobsRequest(session_id=secrets.token_hex(8)).SerializeToString()
                    connection.write(connection.open(call_headers(f"{JOBS}WatchJobs")), prefixed(request))
        time.sleep(20)
        for connection in connections:
            connection.socket.close()


def slow_bodies(_: str, http: str) -> None:
    """Three hundred bodies of four megabytes that never end, and two hundred messages of a stream that never do."""
    host, _, port = http.rpartition(":")
    most = b"x" * 3_900_000
    while True:
        sockets = []
        for number in range(500):
            with suppress(OSError):
                connection = socket.create_connection((host, int(port)), timeout=5)
                sockets.append(connection)
                if number < 300:
                    head = f"POST {JOBS}GetJob HTTP/1.1\r\nHost: {http}\r\nContent-Type: application/json\r\n"
                    connection.sendall(f"{head}Content-Length: 4000000\r\n\r\n".encode())
                else:
                    head = f"POST {JOBS}StreamProgress HTTP/1.1\r\nHost: {http}\r\n"
                    kind = "Content-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n"
                    envelope = struct.pack(">BI", 0, 4_000_000)
                    connection.sendall(f"{head}{kind}5\r\n".encode() + envelope + b"\r\n" + b"3b8260\r\n")
                connection.settimeout(0.2)
                connection.sendall(most)
        time.sleep(20)
        for connection in sockets:
            connection.close()


def half_open_calls(address: str, _: str) -> None:
    """Calls that never send their message, and streams of gRPC's own services that never say anything."""
    paths = [
        f"{JOBS}ReportProgress",
        f"{JOBS}StreamProgress",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]
    while True:
        connections = []
        for _connection in range(4):
            with suppress(OSError):
                connection = Connection(address)
                connections.append(connection)
                for number in range(900):
                    connection.open(call_headers(paths[number % len(paths)]))
                for _number in range(100):
                    connection.write(connection.open(call_headers("/grpc.health.v1.Health/Watch")), prefixed(b""))
        time.sleep(20)
        for connection in connections:
            connection.socket.close()


def flood(address: str, _: str) -> None:
    """Calls in a closed loop, two hundred at a time."""
    jobs = stub(address)
    job = jobs.CreateJob(pb.CreateJobRequest(session_id=CHURN), timeout=20)
    request = pb.ReportProgressRequest(session_id=CHURN, job_id=job.id, advance=1)
    while True:
        calls = [jobs.ReportProgress.future(request, timeout=1) for _ in range(200)]
        for call in calls:
            with suppress(grpc.RpcError):
                call.result()


def stream_bombs(_: str, http: str) -> None:
    """The JSON bombs again, as messages of a stream."""
    client = Client(http)
    body = gzip.compress(b'{"reports":[' + b'{"sessionId":"' + b'\\"' * 1_900_000, 9)
    for _number in rounds():
        message = enveloped(body, flags=1)
        with suppress(OSError, AssertionError, json.JSONDecodeError):
            client.stream("StreamProgress", message, connect_content_encoding="gzip")


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        json_bombs,
        stream_bombs,
        wide_messages,
        fat_lists,
        large_snapshots,
        unread_answers,
        unread_watches,
        hoarded_watches,
        slow_bodies,
        half_open_calls,
        flood,
    )
}


if __name__ == "__main__":
    # An attacker has a machine of their own; here they leave the two cores to the server and its honest callers.
    os.nice(15)
    ATTACKS[sys.argv[1]](sys.argv[2], sys.argv[3])
