"""Every RPC of the service, from its descriptor: a good request of each, and raw bytes to it and back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # JSON, and containers of protobuf

import grpc
from google.protobuf import json_format, message, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from headway.v1 import job_service_pb2 as pb
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Responses
from tests.support.refusals import Refusal, from_error, from_status

SERVICE = pb.DESCRIPTOR.services_by_name["JobService"]

METHODS: dict[str, MethodDescriptor] = {method.name: method for method in SERVICE.methods}

SESSION, JOB = "SESSION", "0123456789abcdef0123456789abcdef"
"""What `good` puts the real session and job in the place of."""

_REPORT: dict[str, Any] = {
    "session_id": SESSION,
    "job_id": JOB,
    "part": "p",
    "sequence": "1",
    "progress": "5",
    "size": "10",
    "message": "m",
    "counters": {"added": "1"},
    "record_errors": [{"record": "r", "code": "C", "message": "m"}],
    "variables": {"v": "text", "list": ["item"], "map": {"k": "text"}},
}

FULL: Mapping[str, dict[str, Any]] = {
    "CreateJob": {
        "session_id": SESSION,
        "job_id": JOB,
        "name": "n",
        "invoker": "i",
        "size": "10",
        "unit": "u",
        "labels": {"l": "v"},
        "heartbeat_timeout": "60s",
        "stall_timeout": "60s",
        "retention": "3600s",
        "key": "k",
        "key_if_free": True,
    },
    "StartJob": {"session_id": SESSION, "job_id": JOB, "take_over": True},
    "GetJob": {"session_id": SESSION, "job_id": JOB, "after_revision": "1", "wait": "0.001s"},
    "ListJobs": {
        "session_id": SESSION,
        "page_size": 10,
        "page_token": "",
        "statuses": ["JOB_STATUS_RUNNING"],
        "name": "n",
        "invoker": "i",
        "labels": {"l": "v"},
        "stalled": False,
    },
    "UpdateJob": {
        "session_id": SESSION,
        "job": {"id": JOB, "name": "n2", "invoker": "i2", "size": "11", "unit": "u2", "labels": {"l": "v"}},
        "update_mask": "name,invoker,size,unit,labels",
    },
    "ReportProgress": _REPORT,
    "StreamProgress": {"reports": [_REPORT]},
    "FinishJob": {"session_id": SESSION, "job_id": JOB, "results": {"r": "text", "list": ["item"]}},
    "FailJob": {"session_id": SESSION, "job_id": JOB, "error": {"code": 13, "message": "m"}},
    "CancelJob": {"session_id": SESSION, "job_id": JOB, "reason": "r", "grace_period": "60s"},
    "SetVariables": {"session_id": SESSION, "job_id": JOB, "variables": {"v": "text"}, "remove": ["w"]},
    "GetVariables": {"session_id": SESSION, "job_id": JOB, "names": ["v"]},
    "GetResults": {"session_id": SESSION, "job_id": JOB},
    "ListRecordErrors": {"session_id": SESSION, "job_id": JOB},
    "ClearJob": {"session_id": SESSION, "job_id": JOB},
    "WatchJob": {"session_id": SESSION, "job_id": JOB},
    "WatchJobs": {"session_id": SESSION, "resume_token": ""},
}
"""A request of each RPC with every field that a caller sets, as JSON."""

UNNAMED = frozenset({"CreateJob", "ListJobs", "WatchJobs"})
"""RPCs that name no job that must be there."""


def named(method: str) -> str:
    """The field that names the job."""
    return {"UpdateJob": "job.id", "StreamProgress": "reports.job_id"}.get(method, "job_id")


def good(method: str, session: str, job_id: str) -> message.Message:
    """A good request about that job."""
    kind = message_factory.GetMessageClass(METHODS[method].input_type)
    request = json_format.ParseDict(FULL[method], kind())
    for place in strings(request):
        if place.value == SESSION:
            place.set(session)
        elif place.value == JOB:
            place.set(job_id)
    return request


@dataclass(frozen=True, slots=True)
class Place:
    """A string somewhere in a message."""

    path: str
    value: str
    set: Callable[[str], None]


def strings(root: message.Message, prefix: str = "") -> Iterator[Place]:
    """Every string that a message holds, keys of maps too; `set` replaces it."""
    for field, content in list(root.ListFields()):
        path = f"{prefix}{field.name}"
        if field.message_type and field.message_type.GetOptions().map_entry:
            yield from _in_map(field, content, path)
        elif field.is_repeated:
            for index, item in enumerate(content):
                if field.type == FieldDescriptor.TYPE_STRING:
                    yield Place(path, item, _setter(content, index))
                elif field.type == FieldDescriptor.TYPE_MESSAGE:
                    yield from strings(item, f"{path}.")
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield Place(path, content, _attribute(root, field.name))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from strings(content, f"{path}.")


def _in_map(field: FieldDescriptor, content: Any, path: str) -> Iterator[Place]:
    assert field.message_type is not None
    holds_messages = field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE
    for key, item in list(content.items()):
        yield Place(f"{path} (key)", key, _key(content, key, holds_messages=holds_messages))
        if isinstance(item, str):
            yield Place(path, item, _setter(content, key))
        elif holds_messages:
            yield from strings(item, f"{path}.")


def _setter(container: Any, key: Any) -> Callable[[str], None]:
    def put(text: str) -> None:
        container[key] = text

    return put


def _attribute(root: message.Message, name: str) -> Callable[[str], None]:
    return lambda text: setattr(root, name, text)


def _key(container: Any, key: str, *, holds_messages: bool) -> Callable[[str], None]:
    def put(text: str) -> None:
        if holds_messages:
            container[text].CopyFrom(container[key])
        else:
            container[text] = container[key]
        if text != key:
            del container[key]

    return put


Answer = list[bytes] | Refusal
"""The responses of a call, or how it was refused."""


def call(
    app: RunningApp,
    method: str,
    request: bytes,
    *,
    metadata: tuple[tuple[str, str], ...] | None = None,
    timeout: float = TIMEOUT,
) -> Answer:
    """Send these bytes. Of a watch, the first response is read; of StreamProgress, a failed report is its answer."""
    descriptor = METHODS[method]
    path = f"/{SERVICE.full_name}/{method}"
    try:
        if not descriptor.server_streaming:
            unary: Callable[..., bytes] = app.channel.unary_unary(path)
            return [unary(request, timeout=timeout, metadata=metadata)]
        if descriptor.client_streaming:
            streaming: Callable[..., Iterator[bytes]] = app.channel.stream_stream(path)
            responses = list(streaming(iter([request]), timeout=timeout, metadata=metadata))
            return _failure(responses) or responses
        watching: Callable[..., Responses[bytes]] = app.channel.unary_stream(path)
        watch = watching(request, timeout=timeout, metadata=metadata)
        first = next(watch, None)
        watch.cancel()
        return [] if first is None else [first]
    except grpc.RpcError as error:
        return from_error(error)


def _failure(responses: list[bytes]) -> Refusal | None:
    for raw in responses:
        for failure in pb.StreamProgressResponse.FromString(raw).failures:
            return from_status(failure.status)
    return None
