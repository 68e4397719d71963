"""Errors over HTTP: their JSON in the Connect protocol, and the HTTP status."""

import base64
import json
import math
from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.responses import Response

from headway_server.domain.errors import JobError
from headway_server.rpc import to_proto
from headway_server.rpc.json_values import Json

_STATUSES: dict[int, int] = {
    code_pb2.CANCELLED: 499,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.UNAUTHENTICATED: 401,
}
"""The HTTP status of each code."""

_OWN_STATUSES = {
    "MESSAGE_TOO_LARGE": 413,
    "REQUEST_TOO_SLOW": 408,
    "FORMAT_UNSUPPORTED": 415,
    "METHOD_UNKNOWN": 404,
}
"""The HTTP status of reasons for which HTTP has a better status than that of their code."""

_DETAILS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
}

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def told(status: status_pb2.Status) -> dict[str, Json]:
    """An error in the form of the Connect protocol."""
    details: list[Json] = []
    for packed in status.details:
        name = packed.TypeName()
        value = base64.b64encode(packed.value).decode().rstrip("=")
        debug: Json = json_format.MessageToDict(_DETAILS[name].FromString(packed.value))
        details.append({"type": name, "value": value, "debug": debug})
    code = code_pb2.Code.Name(status.code).lower().replace("cancelled", "canceled")
    return {"code": code, "message": status.message, "details": details}


def response(status: status_pb2.Status, http_status: int = 0, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """The response to a failed request. Its HTTP status is `http_status`, or that of the reason or code."""
    own = {"cache-control": "no-store"}
    for packed in status.details:
        detail = _DETAILS[packed.TypeName()].FromString(packed.value)
        if isinstance(detail, error_details_pb2.ErrorInfo):
            http_status = http_status or _OWN_STATUSES.get(detail.reason, _STATUSES[status.code])
        elif isinstance(detail, error_details_pb2.RetryInfo):
            own["retry-after"] = str(math.ceil(detail.retry_delay.ToTimedelta().total_seconds()))
    match http_status:
        case 401:
            own["www-authenticate"] = "Bearer"
        case 408:
            own["connection"] = "close"
    content = json.dumps(told(status), ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, http_status, {**own, **headers}, "application/json")


def refusal(error: JobError, http_status: int = 0, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """The response for a JobError."""
    return response(to_proto.status(error), http_status, headers)
