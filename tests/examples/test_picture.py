"""The README's moving picture: how it is made, and that it needs nothing else."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from examples.picture import OUT, draw, record

SVG = "{http://www.w3.org/2000/svg}"

SHOWN = """\
import sys, time
print("\\x1b[1mfirst <&>\\x1b[0m \\x1b[36m━━╾\\x1b[90m──\\x1b[0m 50 %", flush=True)
time.sleep(1.2)
print("\\x1b[1A\\x1b[2K\\x1b[31mlast\\x1b[0m")
"""


def test_what_stood_on_a_terminal_is_drawn() -> None:
    frames = record([sys.executable, "-c", SHOWN], shown="$ it", columns=40, rows=4)
    lines = ["".join(char.data for char in row).rstrip() for frame in frames for row in frame.rows]
    assert lines.count("$ it") == len(frames)
    assert {"first <&> ━━╾── 50 %", "last"} <= set(lines)
    picture = ElementTree.fromstring(draw(frames))
    texts = {text.text: text.attrib["class"] for text in picture.iter(f"{SVG}text")}
    assert texts == {"$ it": "default", "first <&>": "default bold", "50 %": "default", "last": "red"}
    bars = [path.attrib for path in picture.iter(f"{SVG}path")]
    assert [bar["class"] for bar in bars] == ["heavy cyan", "heavy cyan", "light brightblack", "light brightblack"]


def test_a_command_that_fails_makes_no_picture() -> None:
    with pytest.raises(RuntimeError, match="status 3"):
        record([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_picture_of_the_readme_needs_nothing_else() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert f"]({OUT.relative_to(readme.parent)})" in readme.read_text()
    text = OUT.read_text()
    assert len(text) < 150_000
    picture = ElementTree.fromstring(text)
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} == {
        "svg", "title", "style", "defs", "g", "rect", "use", "path", "text",
    }  # fmt: skip
    assert not re.search(r"https?:|url\(|@import|/tmp|/home|/root|127\.0\.0\.1", text.replace(SVG.strip("{}"), ""))
    names = {group.attrib["id"] for group in picture.iter(f"{SVG}g") if "id" in group.attrib}
    assert {use.attrib["href"].removeprefix("#") for use in picture.iter(f"{SVG}use")} <= names
    shown = [element.text or "" for element in picture.iter(f"{SVG}text")]
    assert "$ make demo" in shown
    assert any("server does not answer" in line for line in shown)
    assert sum(line.startswith("✓") for line in shown) == 8
