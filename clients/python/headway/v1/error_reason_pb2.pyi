from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    INVALID_REQUEST: _ClassVar[ErrorReason]
    MALFORMED_MESSAGE: _ClassVar[ErrorReason]
    JOB_NOT_FOUND: _ClassVar[ErrorReason]
    JOB_ALREADY_EXISTS: _ClassVar[ErrorReason]
    JOB_ENDED: _ClassVar[ErrorReason]
    JOB_NOT_STARTED: _ClassVar[ErrorReason]
    JOB_ALREADY_STARTED: _ClassVar[ErrorReason]
    STALE_ATTEMPT: _ClassVar[ErrorReason]
    JOB_ID_AMBIGUOUS: _ClassVar[ErrorReason]
    RESUME_TOKEN_EXPIRED: _ClassVar[ErrorReason]
    REVISION_MISMATCH: _ClassVar[ErrorReason]
    SESSION_JOBS_LIMIT: _ClassVar[ErrorReason]
    WATCHES_LIMIT: _ClassVar[ErrorReason]
    OVERLOADED: _ClassVar[ErrorReason]
    STORAGE_FULL: _ClassVar[ErrorReason]
    DATABASE_UNAVAILABLE: _ClassVar[ErrorReason]
    SHUTTING_DOWN: _ClassVar[ErrorReason]
    STREAM_EXPIRED: _ClassVar[ErrorReason]
    CREDENTIALS_INVALID: _ClassVar[ErrorReason]
    SCOPE_MISSING: _ClassVar[ErrorReason]
    ABANDONED: _ClassVar[ErrorReason]
    CANCELLED_BY_SERVER: _ClassVar[ErrorReason]
    SERVER_FAULT: _ClassVar[ErrorReason]
    DEADLINE_PASSED: _ClassVar[ErrorReason]
    MESSAGE_TOO_LARGE: _ClassVar[ErrorReason]
    REQUEST_TOO_SLOW: _ClassVar[ErrorReason]
    FORMAT_UNSUPPORTED: _ClassVar[ErrorReason]
    METHOD_UNKNOWN: _ClassVar[ErrorReason]
    SITE_REFUSED: _ClassVar[ErrorReason]
    SERVER_JOBS_LIMIT: _ClassVar[ErrorReason]
    SERVER_SESSIONS_LIMIT: _ClassVar[ErrorReason]
    CONNECTIONS_LIMIT: _ClassVar[ErrorReason]
    MEMORY_LIMIT: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
INVALID_REQUEST: ErrorReason
MALFORMED_MESSAGE: ErrorReason
JOB_NOT_FOUND: ErrorReason
JOB_ALREADY_EXISTS: ErrorReason
JOB_ENDED: ErrorReason
JOB_NOT_STARTED: ErrorReason
JOB_ALREADY_STARTED: ErrorReason
STALE_ATTEMPT: ErrorReason
JOB_ID_AMBIGUOUS: ErrorReason
RESUME_TOKEN_EXPIRED: ErrorReason
REVISION_MISMATCH: ErrorReason
SESSION_JOBS_LIMIT: ErrorReason
WATCHES_LIMIT: ErrorReason
OVERLOADED: ErrorReason
STORAGE_FULL: ErrorReason
DATABASE_UNAVAILABLE: ErrorReason
SHUTTING_DOWN: ErrorReason
STREAM_EXPIRED: ErrorReason
CREDENTIALS_INVALID: ErrorReason
SCOPE_MISSING: ErrorReason
ABANDONED: ErrorReason
CANCELLED_BY_SERVER: ErrorReason
SERVER_FAULT: ErrorReason
DEADLINE_PASSED: ErrorReason
MESSAGE_TOO_LARGE: ErrorReason
REQUEST_TOO_SLOW: ErrorReason
FORMAT_UNSUPPORTED: ErrorReason
METHOD_UNKNOWN: ErrorReason
SITE_REFUSED: ErrorReason
SERVER_JOBS_LIMIT: ErrorReason
SERVER_SESSIONS_LIMIT: ErrorReason
CONNECTIONS_LIMIT: ErrorReason
MEMORY_LIMIT: ErrorReason
