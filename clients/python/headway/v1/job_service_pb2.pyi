import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.rpc import status_pb2 as _status_pb2
from headway.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "name", "invoker", "size", "unit", "labels", "heartbeat_timeout", "stall_timeout", "retention", "pending", "continues", "key", "key_if_free")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    STALL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CONTINUES_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_IF_FREE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    name: str
    invoker: str
    size: int
    unit: str
    labels: _containers.ScalarMap[str, str]
    heartbeat_timeout: _duration_pb2.Duration
    stall_timeout: _duration_pb2.Duration
    retention: _duration_pb2.Duration
    pending: bool
    continues: str
    key: str
    key_if_free: bool
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., name: _Optional[str] = ..., invoker: _Optional[str] = ..., size: _Optional[int] = ..., unit: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., heartbeat_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stall_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pending: _Optional[bool] = ..., continues: _Optional[str] = ..., key: _Optional[str] = ..., key_if_free: _Optional[bool] = ...) -> None: ...

class StartJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "take_over")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    take_over: bool
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., take_over: _Optional[bool] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "after_revision", "wait")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    after_revision: int
    wait: _duration_pb2.Duration
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., after_revision: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("session_id", "page_size", "page_token", "statuses", "name", "invoker", "labels", "stalled")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INVOKER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    page_size: int
    page_token: str
    statuses: _containers.RepeatedScalarFieldContainer[_job_pb2.JobStatus]
    name: str
    invoker: str
    labels: _containers.ScalarMap[str, str]
    stalled: bool
    def __init__(self, session_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[_job_pb2.JobStatus, str]]] = ..., name: _Optional[str] = ..., invoker: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., stalled: _Optional[bool] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[_job_pb2.Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[_job_pb2.Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateJobRequest(_message.Message):
    __slots__ = ("session_id", "job", "update_mask", "revision")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job: _job_pb2.Job
    update_mask: _field_mask_pb2.FieldMask
    revision: int
    def __init__(self, session_id: _Optional[str] = ..., job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ReportProgressRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "attempt", "part", "sequence", "progress", "advance", "size", "message", "counters", "record_errors", "variables")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ADVANCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    RECORD_ERRORS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    attempt: int
    part: str
    sequence: int
    progress: int
    advance: int
    size: int
    message: str
    counters: _containers.ScalarMap[str, int]
    record_errors: _containers.RepeatedCompositeFieldContainer[_job_pb2.RecordError]
    variables: _struct_pb2.Struct
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., part: _Optional[str] = ..., sequence: _Optional[int] = ..., progress: _Optional[int] = ..., advance: _Optional[int] = ..., size: _Optional[int] = ..., message: _Optional[str] = ..., counters: _Optional[_Mapping[str, int]] = ..., record_errors: _Optional[_Iterable[_Union[_job_pb2.RecordError, _Mapping]]] = ..., variables: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ReportProgressResponse(_message.Message):
    __slots__ = ("status", "progress", "revision", "cancellation", "next_report_after")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CANCELLATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_REPORT_AFTER_FIELD_NUMBER: _ClassVar[int]
    status: _job_pb2.JobStatus
    progress: int
    revision: int
    cancellation: _job_pb2.Cancellation
    next_report_after: _duration_pb2.Duration
    def __init__(self, status: _Optional[_Union[_job_pb2.JobStatus, str]] = ..., progress: _Optional[int] = ..., revision: _Optional[int] = ..., cancellation: _Optional[_Union[_job_pb2.Cancellation, _Mapping]] = ..., next_report_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StreamProgressRequest(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[ReportProgressRequest]
    def __init__(self, reports: _Optional[_Iterable[_Union[ReportProgressRequest, _Mapping]]] = ...) -> None: ...

class StreamProgressResponse(_message.Message):
    __slots__ = ("acked", "failures", "cancellations", "next_report_after")
    ACKED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    CANCELLATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_REPORT_AFTER_FIELD_NUMBER: _ClassVar[int]
    acked: int
    failures: _containers.RepeatedCompositeFieldContainer[ReportFailure]
    cancellations: _containers.RepeatedCompositeFieldContainer[JobCancellation]
    next_report_after: _duration_pb2.Duration
    def __init__(self, acked: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[ReportFailure, _Mapping]]] = ..., cancellations: _Optional[_Iterable[_Union[JobCancellation, _Mapping]]] = ..., next_report_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReportFailure(_message.Message):
    __slots__ = ("request", "report", "status")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    request: int
    report: int
    status: _status_pb2.Status
    def __init__(self, request: _Optional[int] = ..., report: _Optional[int] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class JobCancellation(_message.Message):
    __slots__ = ("job_id", "cancellation")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    CANCELLATION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    cancellation: _job_pb2.Cancellation
    def __init__(self, job_id: _Optional[str] = ..., cancellation: _Optional[_Union[_job_pb2.Cancellation, _Mapping]] = ...) -> None: ...

class FinishJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "attempt", "results")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    attempt: int
    results: _struct_pb2.Value
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., results: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class FailJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "attempt", "error")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    attempt: int
    error: _status_pb2.Status
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "reason", "grace_period")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    reason: str
    grace_period: _duration_pb2.Duration
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., reason: _Optional[str] = ..., grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SetVariablesRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "variables", "remove")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    variables: _struct_pb2.Struct
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., variables: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class GetVariablesRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "names")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class GetVariablesResponse(_message.Message):
    __slots__ = ("variables",)
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    variables: _struct_pb2.Struct
    def __init__(self, variables: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class GetResultsRequest(_message.Message):
    __slots__ = ("session_id", "job_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ...) -> None: ...

class GetResultsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _struct_pb2.Value
    def __init__(self, results: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class ListRecordErrorsRequest(_message.Message):
    __slots__ = ("session_id", "job_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ...) -> None: ...

class ListRecordErrorsResponse(_message.Message):
    __slots__ = ("first", "last", "total")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    first: _containers.RepeatedCompositeFieldContainer[_job_pb2.RecordError]
    last: _containers.RepeatedCompositeFieldContainer[_job_pb2.RecordError]
    total: int
    def __init__(self, first: _Optional[_Iterable[_Union[_job_pb2.RecordError, _Mapping]]] = ..., last: _Optional[_Iterable[_Union[_job_pb2.RecordError, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class ClearJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "allow_missing")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    allow_missing: bool
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("session_id", "job_id", "after_revision")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    job_id: str
    after_revision: int
    def __init__(self, session_id: _Optional[str] = ..., job_id: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.Job
    def __init__(self, job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("session_id", "resume_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    resume_token: str
    def __init__(self, session_id: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("job", "removed_job_id", "resume_token")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REMOVED_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job: _job_pb2.Job
    removed_job_id: str
    resume_token: str
    def __init__(self, job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ..., removed_job_id: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...
