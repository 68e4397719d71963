"""docs/clients.md: its table of features and its workers, generated from what is tested.

The page has marks, `<!-- features -->` and `<!-- workers -->`, each closed by `<!-- end -->`. This module writes what
is between them.
"""

import re
from collections.abc import Mapping, Sequence

from clients.conformance.case import Case, Known
from clients.conformance.languages import LANGUAGES, ROOT
from clients.conformance.table import features

PAGE = ROOT / "docs" / "clients.md"

_FENCES = {"python": "python", "go": "go", "node": "ts", "java": "java", "rust": "rust", "perl": "perl", "shell": "sh"}


def made(page: str, cases: Sequence[Case], known: Mapping[tuple[str, str], Known]) -> str:
    """The page with its generated parts as they must be."""
    return _put(_put(page, "features", features(cases, known)), "workers", _workers())


def _workers() -> str:
    parts = []
    for name, language in LANGUAGES.items():
        sample = language.folder / language.sample
        text = f"### {language.title}\n\n```{_FENCES[name]}\n{sample.read_text().rstrip()}\n```"
        parts.append(f"{text}\n\n[clients/{name}](../clients/{name})")
    return "\n\n".join(parts)


def _put(page: str, mark: str, content: str) -> str:
    put, times = re.subn(
        rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{content}\n\n{found[2]}",
        page,
        flags=re.DOTALL,
    )
    if times != 1:
        raise ValueError(f"{PAGE.name} must have the mark {mark} once")
    return put
