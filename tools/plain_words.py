"""Finds words that the glossary of CONTRIBUTING.md replaces, in names and in prose: `make lint` runs it.

`python tools/plain_words.py [PATH…]` checks all tracked text files, or those at these paths. It prints PATH:LINE for
each word, and the word to write instead; its exit status is 1 if there is any.

plain_words.txt, beside this file, has the words and the exceptions. A line with `plain-words: ok` in a comment is not
checked, nor are the lines between `plain-words: off` and `plain-words: on`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

WORDS = Path(__file__).with_suffix(".txt")

# Where a name made of several words is split: job_cache, jobCache, HTTPServer.
SPLIT = re.compile(r"_|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# A longer line is data, not text.
LONGEST_LINE = 2_000


@dataclass
class Rules:
    """What plain_words.txt says."""

    words: list[tuple[re.Pattern[str], str]] = field(default_factory=list)
    """Expressions, and what to write instead. They see names as separate words: `job_cache` as `job cache`."""
    exceptions: list[tuple[str, re.Pattern[str]]] = field(default_factory=list)
    """Patterns of paths, and expressions that may stand there. They see the line as it is."""
    skipped: list[str] = field(default_factory=list)
    """Patterns of paths that are not checked."""

    def skips(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self.skipped)


def read_rules(text: str) -> Rules:
    rules = Rules()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if " => " in line:
            expression, instead = line.split(" => ")
            rules.words.append((re.compile(expression.strip(), re.IGNORECASE), instead.strip()))
        else:
            pattern, _, expression = line.partition("::")
            if expression.strip():
                rules.exceptions.append((pattern.strip(), re.compile(expression.strip())))
            else:
                rules.skipped.append(pattern.strip())
    return rules


def split_names(line: str) -> str:
    """The line with every name as separate words."""
    return SPLIT.sub(" ", line)


def check_text(path: str, text: str, rules: Rules) -> Iterator[tuple[int, str, str]]:
    """Line number, word, and what to write instead. Line 0 is the path itself."""
    allowed = [expression for pattern, expression in rules.exceptions if fnmatch(path, pattern)]
    checked = True
    for number, line in enumerate([path, *text.splitlines()]):
        if "plain-words: off" in line or "plain-words: on" in line:
            checked = "plain-words: on" in line
        elif checked and len(line) <= LONGEST_LINE and "plain-words: ok" not in line:
            for expression in allowed:
                line = expression.sub("", line)
            words = split_names(line)
            for expression, instead in rules.words:
                for found in expression.finditer(words):
                    yield number, found[0], instead


def tracked_files(paths: list[str]) -> list[str]:
    git = ["git", "ls-files", "-z", "--", *paths]
    found = subprocess.run(git, check=True, capture_output=True, text=True)  # noqa: S603 - git alone
    return [path for path in found.stdout.split("\0") if path]


def read_text(path: str) -> str | None:
    """None for a file that is missing, or is not text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        return None


def main(paths: list[str]) -> int:
    rules = read_rules(WORDS.read_text(encoding="utf-8"))
    count = 0
    for path in tracked_files(paths):
        text = None if rules.skips(path) else read_text(path)
        for number, word, instead in check_text(path, text, rules) if text is not None else ():
            print(f"{path}:{number or 1}: {word!r}: write {instead}")
            count += 1
    if count:
        print(f"{count} words to replace; tools/plain_words.txt lists the words and the exceptions", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
