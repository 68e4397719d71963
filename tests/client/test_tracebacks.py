"""What a failure tells beside its message: where in the code it happened."""

import asyncio

import pytest
from google.rpc import error_details_pb2

import headway

MOST_BYTES = 4096


def sent(hw: headway.Client, error: BaseException) -> list[str]:
    """The lines of the traceback that a job has whose block this error leaves."""

    def import_patrons() -> None:
        raise error

    with pytest.raises(type(error)), hw.job() as job:
        import_patrons()
    info = error_details_pb2.DebugInfo()
    details = hw.get(None, job.id).error.details
    return list(info.stack_entries) if details and details[0].Unpack(info) else []


def test_a_failure_brings_the_last_lines_of_its_traceback(hw: headway.Client) -> None:
    secret = "never shown"
    lines = sent(hw, LookupError(secret))
    assert "in import_patrons" in lines[-2]
    assert lines[-1].strip() == "raise error"
    assert secret not in "\n".join(lines)


def test_it_is_bounded(hw: headway.Client) -> None:
    def down(depth: int) -> None:
        if not depth:
            raise RecursionError("too deep")
        down(depth - 1)

    with pytest.raises(RecursionError) as caught:
        down(400)
    lines = sent(hw, caught.value)
    assert "in down" in lines[-2]
    # Python shortens what repeats itself.
    assert 2 <= len(lines) < 100
    assert sum(map(len, lines)) <= MOST_BYTES

    with pytest.raises(LookupError) as thrown:
        exec(compile("raise LookupError", "ü" * 5000, "exec"))
    lines = sent(hw, thrown.value)
    assert "üü" in lines[-1]
    assert sum(len(line.encode()) for line in lines) <= MOST_BYTES


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(3)])
def test_what_is_no_fault_of_the_code_has_none(hw: headway.Client, error: BaseException) -> None:
    assert sent(hw, error) == []


def test_it_can_be_left_out(hw: headway.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TRACEBACK", "0")
    assert sent(hw, LookupError("no such thing")) == []
