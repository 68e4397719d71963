"""tools/plain_words.py finds replaced words in names and in prose, and skips what may stay."""

import pytest

from tools.plain_words import check_text, read_rules

RULES = read_rules(r"""
# A comment.
\bdoors?\b => transport
(?-i:\bWho)\b => a noun
* :: --door\b
data/* ::
""")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("grpc_door = 1", ["door"]),
        ("class GrpcDoor:", ["Door"]),
        ("HTTPDoors", ["Doors"]),
        ("the door and the doors", ["door", "doors"]),
        ("indoor", []),
        ("# Who calls", ["Who"]),
        ("# those who call", []),
        ("`--door` is an alias", []),
        ("door = 1  # plain-words: ok", []),
    ],
)
def test_words_are_found_in_names_and_prose(line: str, words: list[str]) -> None:
    assert [word for _, word, _ in check_text("a.py", line, RULES)] == words


def test_a_block_can_be_left_out() -> None:
    text = "door\nplain-words: off\ndoor\nplain-words: on\ndoor"
    assert [number for number, _, _ in check_text("a.md", text, RULES)] == [1, 5]


def test_paths_are_checked_too() -> None:
    assert list(check_text("http_door.py", "", RULES)) == [(0, "door", "transport")]
    assert RULES.skips("data/door.txt")
