"""Variables of a job are merged change by change, and their size is that of all of them."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from headway_server.domain.errors import InvalidRequest
from headway_server.domain.limits import Limits
from headway_server.domain.report import Variables, merge_variables

LIMITS = replace(Limits(), variables=4, variables_bytes=40)

NAMES = st.sampled_from(["a", "ab", "ä", "一", "é一", "x" * 9])
TEXTS = st.sampled_from(["1", "null", '"ä"', '"一二三"', '"😀"', '"' + "y" * 15 + '"'])
CHANGES = st.dictionaries(NAMES, TEXTS, max_size=5)


def size_of(texts: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(text.encode()) for name, text in texts.items())


@given(st.lists(st.tuples(CHANGES, st.lists(NAMES, max_size=4)), max_size=12))
def test_the_size_is_that_of_all_variables(steps: list[tuple[dict[str, str], list[str]]]) -> None:
    """After any changes, and in what is refused as well."""
    variables = Variables()
    for changes, remove in steps:
        before = dict(variables.texts)
        wanted = {name: text for name, text in before.items() if name not in remove} | changes
        if len(wanted) > LIMITS.variables:
            refusal = "variables: a job has at most 4 variables"
        elif size_of(wanted) > LIMITS.variables_bytes:
            refusal = f"variables: all variables of a job take at most 40 bytes, not {size_of(wanted)}"
        else:
            refusal = ""
        try:
            merged = merge_variables(variables, changes, remove, LIMITS)
        except InvalidRequest as error:
            assert error.message == refusal
        else:
            assert not refusal
            assert merged == Variables(wanted, size_of(wanted)) == Variables.of(wanted)
            assert variables.texts == before, "a merge changed what it was given"
            variables = merged


class Counted(str):
    """Text that counts how often it is encoded."""

    encoded = 0

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        Counted.encoded += 1
        return super().encode(encoding, errors)


def test_a_change_measures_what_it_changes_alone() -> None:
    """A message can hold a thousand changes of a job with many variables, and all other writers wait for them."""
    Counted.encoded = 0
    variables = Variables.of({Counted(f"{number}"): Counted("1") for number in range(250)})
    measured = Counted.encoded
    assert measured == 500
    for number in range(1000):
        variables = merge_variables(variables, {"new": f"{number}"}, (), Limits())
    assert Counted.encoded == measured
    assert variables.texts["new"] == "999"
