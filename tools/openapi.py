"""Writes the OpenAPI description of the HTTP transport from the protos. `make stubs` writes its output to openapi.json.

Reads a FileDescriptorSet with comments on standard input.
"""

import json
import sys
from collections.abc import Iterator

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2, json_format

from headway_server.rpc.json_values import Json

BEHAVIOUR = f"[{field_behavior_pb2.field_behavior.full_name}]"

SERVICE = "headway.v1.JobService"

Schema = dict[str, Json]
Field = descriptor_pb2.FieldDescriptorProto
Message = descriptor_pb2.DescriptorProto

WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["60s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["name,size"]},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}

SCALARS: dict[int, Schema] = {
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    Field.TYPE_INT64: {"type": "string", "format": "int64", "pattern": r"^-?\d+$"},
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
}

ABOUT = """\
The methods of headway.v1.JobService over HTTP, in the Connect protocol (https://connectrpc.com/docs/protocol).

Replies name fields in camelCase; requests may use the names of the protos too. Replies write integers of 64 bits as
text; requests may send those up to 2^53 as numbers. Unknown fields are refused. Methods that stream read and write
messages in envelopes: a byte of flags, four bytes of length (big-endian), and the JSON. The last envelope has flag 2,
and says in `error` how the stream ended.
"""

ERROR: Schema = {
    "type": "object",
    "description": "The reply to every call that fails.",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "string", "description": "The gRPC code, for example not_found."},
        "message": {"type": "string", "description": "A sentence that says what to do."},
        "details": {
            "type": "array",
            "description": "google.rpc.ErrorInfo (its reason is a headway.v1.ErrorReason), BadRequest, RetryInfo.",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": {"type": "string", "description": "Full name of the message."},
                    "value": {"type": "string", "description": "The message in base64, without padding."},
                    "debug": {"type": "object", "description": "The message as JSON."},
                },
            },
        },
    },
}

POLL: Schema = {
    "type": "object",
    "required": [
        "status", "ended", "name", "progress", "size", "unit", "percent", "message", "remaining_seconds", "error_count",
        "error", "stalled", "cancel_requested", "revision",
    ],
    "properties": {
        "status": {"type": "string", "enum": ["PENDING", "RUNNING", "LOST", "COMPLETED", "FAILED", "CANCELLED"]},
        "ended": {"type": "boolean", "description": "True once the job has ended: it changes no more."},
        "name": {"type": "string"},
        "progress": {"type": "integer"},
        "size": {"type": "integer", "description": "0: not known."},
        "unit": {"type": "string"},
        "percent": {"type": ["integer", "null"], "minimum": 0, "maximum": 100, "description": "Null without a size."},
        "message": {"type": "string", "description": "What the job is doing now."},
        "remaining_seconds": {"type": ["number", "null"], "description": "The most likely; null without an estimate."},
        "error_count": {"type": "integer", "description": "Records that failed."},
        "error": {"type": ["string", "null"], "description": "Why the job failed or was cancelled."},
        "stalled": {"type": "boolean"},
        "cancel_requested": {"type": "boolean"},
        "revision": {"type": "integer"},
    },
}  # fmt: skip


class Protos:
    """The messages of a set of files, by full name, with their comments."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}
        self.services: dict[str, descriptor_pb2.ServiceDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        for file in files.file:
            texts = {tuple(place.path): _text(place.leading_comments) for place in file.source_code_info.location}
            for index, service in enumerate(file.service):
                name = f"{file.package}.{service.name}"
                self.services[name] = service
                self.comments[name] = texts.get((6, index), "")
                for number, method in enumerate(service.method):
                    self.comments[f"{name}.{method.name}"] = texts.get((6, index, 2, number), "")
            for index, enum in enumerate(file.enum_type):
                self._add_enum(file.package, enum, (5, index), texts)
            for index, message in enumerate(file.message_type):
                self._add_message(file.package, message, (4, index), texts)

    def _add_enum(
        self,
        scope: str,
        enum: descriptor_pb2.EnumDescriptorProto,
        path: tuple[int, ...],
        texts: dict[tuple[int, ...], str],
    ) -> None:
        name = f"{scope}.{enum.name}"
        self.enums[name] = enum
        self.comments[name] = texts.get(path, "")
        for number, value in enumerate(enum.value):
            self.comments[f"{name}.{value.name}"] = texts.get((*path, 2, number), "")

    def _add_message(
        self, scope: str, message: Message, path: tuple[int, ...], texts: dict[tuple[int, ...], str]
    ) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self.comments[name] = texts.get(path, "")
        for number, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = texts.get((*path, 2, number), "")
        for number, nested in enumerate(message.nested_type):
            self._add_message(name, nested, (*path, 3, number), texts)
        for number, enum in enumerate(message.enum_type):
            self._add_enum(name, enum, (*path, 4, number), texts)


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in comment.strip("\n").splitlines())


class Description:
    """The OpenAPI document of a service; schemas are added as they are met."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self._schemas: dict[str, Json] = {"connect.Error": ERROR, "Poll": POLL}

    def document(self) -> Schema:
        """All of it."""
        service = self._protos.services[SERVICE]
        paths: dict[str, Json] = {f"/{SERVICE}/{m.name}": {"post": self._operation(m)} for m in service.method}
        paths |= self._others()
        about = f"{ABOUT}\n{self._protos.comments[SERVICE]}"
        return {
            "openapi": "3.1.0",
            "info": {"title": "Headway", "version": "v1", "description": about, "license": {"name": "Apache-2.0"}},
            "servers": [{"url": "/"}],
            # Without a token a caller is an ordinary one.
            "security": [{}, {"token": []}],
            "paths": dict(paths),
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _operation(self, method: descriptor_pb2.MethodDescriptorProto) -> Schema:
        kind = "application/connect+json" if method.server_streaming else "application/json"
        return {
            "operationId": method.name,
            "tags": ["JobService"],
            "description": self._protos.comments[f"{SERVICE}.{method.name}"],
            "parameters": [
                {
                    "name": "Connect-Timeout-Ms",
                    "in": "header",
                    "description": "The deadline of the call, in milliseconds from now.",
                    "schema": {"type": "integer", "minimum": 0},
                }
            ],
            "requestBody": {"required": True, "content": {kind: {"schema": self._message(method.input_type)}}},
            "responses": {
                "200": {"description": "Done.", "content": {kind: {"schema": self._message(method.output_type)}}},
                **_failed(),
            },
        }

    def _others(self) -> Iterator[tuple[str, Json]]:
        asked = self._message(".headway.v1.GetJobRequest")
        yield (
            "/poll",
            {
                "post": {
                    "operationId": "Poll",
                    "tags": ["Pages"],
                    "description": "A job in a few plain fields, for pages that can only poll.",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
                    "responses": {
                        "200": {
                            "description": "The job now.",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Poll"}}},
                        },
                        **_failed(),
                    },
                }
            },
        )
        for path, name, text in (
            ("/healthz", "Alive", "The process lives."),
            ("/readyz", "Ready", "The server takes calls, and its database answers; else 503."),
            ("/metrics", "Metrics", "Numbers for Prometheus."),
        ):
            plain: Schema = {"text/plain": {"schema": {"type": "string"}}}
            answers: Schema = {"200": {"description": text, "content": plain}}
            yield (
                path,
                {
                    "get": {
                        "operationId": name,
                        "tags": ["Operators"],
                        "description": text,
                        "responses": {**answers, **_failed()},
                    }
                },
            )

    def _message(self, name: str) -> Schema:
        """The schema of a message, by reference."""
        name = name.removeprefix(".")
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        if name not in self._schemas:
            self._schemas[name] = {}
            self._schemas[name] = self._schema(name)
        return {"$ref": f"#/components/schemas/{name}"}

    def _schema(self, name: str) -> Schema:
        message = self._protos.messages[name]
        properties: Schema = {}
        required: list[Json] = []
        for field in message.field:
            shape = self._field(name, field)
            behaviour = json_format.MessageToDict(field.options).get(BEHAVIOUR, [])
            if "OUTPUT_ONLY" in behaviour:
                shape["readOnly"] = True
            if "REQUIRED" in behaviour:
                required.append(field.json_name)
            text = self._protos.comments[f"{name}.{field.name}"]
            properties[field.json_name] = {**shape, "description": text} if text else shape
        found: Schema = {"type": "object", "properties": properties}
        if self._protos.comments[name]:
            found["description"] = self._protos.comments[name]
        if required:
            found["required"] = required
        return found

    def _field(self, owner: str, field: Field) -> Schema:
        entry = self._protos.messages.get(field.type_name.removeprefix("."))
        if entry is not None and entry.options.map_entry:
            return {"type": "object", "additionalProperties": self._field(owner, entry.field[1])}
        shape = self._one(field)
        return {"type": "array", "items": shape} if field.label == Field.LABEL_REPEATED else shape

    def _one(self, field: Field) -> Schema:
        if field.type == Field.TYPE_MESSAGE:
            return self._message(field.type_name)
        if field.type == Field.TYPE_ENUM:
            name = field.type_name.removeprefix(".")
            if name not in self._schemas:
                values = self._protos.enums[name].value
                texts = [f"{value.name}: {self._protos.comments[f'{name}.{value.name}']}" for value in values]
                about = "\n\n".join([self._protos.comments[name], *texts])
                self._schemas[name] = {
                    "type": "string",
                    "enum": [value.name for value in values],
                    "description": about,
                }
            return {"$ref": f"#/components/schemas/{name}"}
        return dict(SCALARS[field.type])


def _failed() -> Schema:
    error: Schema = {"schema": {"$ref": "#/components/schemas/connect.Error"}}
    text = "It failed; the HTTP status follows from the code."
    return {"default": {"description": text, "content": {"application/json": error}}}


def main() -> None:
    """From standard input to standard output."""
    files = descriptor_pb2.FileDescriptorSet.FromString(sys.stdin.buffer.read())
    print(json.dumps(Description(Protos(files)).document(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
