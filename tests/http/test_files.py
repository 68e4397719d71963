"""The page's files, and the description of the HTTP transport."""

import gzip
import json
from pathlib import Path

import openapi_spec_validator
import pytest
from openapi_schema_validator import OAS31Validator

from headway_server.http import page_files
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.http import Client
from tests.support.methods import METHODS

PAGE = Path(page_files.__file__).with_name("page")


def test_every_file_of_the_page_is_served(client: Client) -> None:
    found = [path for path in PAGE.rglob("*") if path.suffix in page_files.TYPES]
    assert PAGE / "index.html" in found
    for path in found:
        name = path.relative_to(PAGE).as_posix()
        answer = client.get("/" if name == "index.html" else f"/{name}")
        assert (answer.status, answer.body) == (200, path.read_bytes())
        assert answer.headers["content-type"] == page_files.TYPES[path.suffix]


def test_nothing_in_the_page_comes_from_another_host() -> None:
    for path in PAGE.rglob("*"):
        if path.suffix in (".html", ".css"):
            text = path.read_text()
            assert "<style" not in text and "onclick" not in text
            assert "//" not in text.replace("http://www.w3.org/", "")


def test_an_unchanged_file_is_not_sent_again(client: Client) -> None:
    first = client.get("/")
    again = client.get("/", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert client.get("/", if_none_match='"other"').status == 200


def test_a_file_is_compressed_for_who_takes_it(client: Client) -> None:
    plain = client.get("/openapi.json")
    zipped = client.get("/openapi.json", accept_encoding="gzip, deflate, br")
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert len(zipped.body) < len(plain.body) / 3


def test_a_head_has_no_body(client: Client) -> None:
    answer = client.send("HEAD", "/")
    assert (answer.status, answer.body) == (200, b"")


def test_the_page_learns_where_grpc_is(client: Client, app: RunningApp) -> None:
    assert client.get("/server.json").json == {"grpcPort": int(app.app.address.rpartition(":")[2])}


def test_the_description_is_valid_openapi(client: Client) -> None:
    description = client.get("/openapi.json").json
    openapi_spec_validator.validate(description)
    assert description["openapi"] == "3.1.0"


def test_the_description_is_of_what_is_served(client: Client) -> None:
    """Every method, every field, each with what the proto says of it."""
    description = client.get("/openapi.json").json
    paths = description["paths"]
    schemas = description["components"]["schemas"]
    assert set(paths) == {f"/headway.v1.JobService/{name}" for name in METHODS} | {
        "/poll",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for name, method in METHODS.items():
        described = paths[f"/headway.v1.JobService/{name}"]["post"]
        assert described["description"]
        for kind in (method.input_type, method.output_type):
            if kind.full_name == "google.protobuf.Empty":
                continue
            properties = schemas[kind.full_name]["properties"]
            assert set(properties) == {field.json_name for field in kind.fields}
            assert all("description" in each for each in properties.values()), kind.full_name
    for path in paths:
        verb = next(iter(paths[path]))
        answer = client.send("POST" if verb == "get" else "GET", path)
        assert answer.status == 405, "what is described is there"


@pytest.mark.parametrize("method", ["CreateJob", "GetJob", "ListJobs", "GetResults", "ListRecordErrors"])
def test_answers_are_as_described(client: Client, caller: Caller, method: str) -> None:
    description = client.get("/openapi.json").json
    job = caller.finish(caller.create(size=3, labels={"a": "b"}).id)
    body: dict[str, str] = {"sessionId": caller.session}
    if method not in ("CreateJob", "ListJobs"):
        body["jobId"] = job.id
    shape = description["paths"][f"/headway.v1.JobService/{method}"]["post"]["responses"]
    answer = client.call(method, body)
    schema = {**shape["200"]["content"]["application/json"]["schema"], "components": description["components"]}
    OAS31Validator(schema).validate(answer.json)
    refused = client.call(method, {"sessionId": ""})
    error = {**shape["default"]["content"]["application/json"]["schema"], "components": description["components"]}
    OAS31Validator(error).validate(refused.json)
    polled = client.post("/poll", {"sessionId": caller.session, "jobId": job.id})
    OAS31Validator({**description["components"]["schemas"]["Poll"], "additionalProperties": False}).validate(
        json.loads(polled.body)
    )
