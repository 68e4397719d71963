"""Values are written as protobuf itself writes them."""

import json

from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain.errors import FAULTS_SHOWN, Fault
from headway_server.rpc.json_values import Json, struct_on_wire, to_text, value_on_wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)  # fmt: skip


@given(VALUES)
def test_a_value_is_what_protobuf_makes_of_the_json(plain: Json) -> None:
    text = json.dumps(plain)
    expected = json_format.Parse(text, struct_pb2.Value())
    assert struct_pb2.Value.FromString(value_on_wire(text)) == expected


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_a_struct_is_what_protobuf_makes_of_the_json(plain: dict[str, Json]) -> None:
    texts = {name: json.dumps(item) for name, item in plain.items()}
    expected = json_format.Parse(json.dumps(plain), struct_pb2.Struct())
    assert struct_pb2.Struct.FromString(struct_on_wire(texts)) == expected


@given(VALUES.map(json.dumps))
def test_text_and_wire_say_the_same(text: str) -> None:
    faults: list[Fault] = []
    written = to_text(struct_pb2.Value.FromString(value_on_wire(text)), "results", faults)
    if not faults:
        assert value_on_wire(written) == value_on_wire(to_text(json_format.Parse(text, struct_pb2.Value()), "", []))


def test_long_lengths() -> None:
    for length in (127, 128, 16_383, 16_384, 2_097_152):
        text = json.dumps("x" * length)
        assert struct_pb2.Value.FromString(value_on_wire(text)).string_value == "x" * length


def test_a_value_with_many_faults_is_not_looked_at_further() -> None:
    """A refusal names few of them, and to find the others takes half a millisecond for each KB."""
    value = struct_pb2.Value()
    value.struct_value["name"] = ["\0"] * 10_000
    faults: list[Fault] = []
    to_text(value, "results", faults)
    assert len(faults) == FAULTS_SHOWN + 1
    assert faults[3].field == "results.name[3]"
