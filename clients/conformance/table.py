"""What each client supports, in Markdown, generated from the cases and from known.yaml, which the tests check."""

from collections.abc import Mapping, Sequence

from clients.conformance.case import Case, Known
from clients.conformance.languages import LANGUAGES


def features(cases: Sequence[Case], known: Mapping[tuple[str, str], Known]) -> str:
    """Features × languages, and below the table why a mark is missing."""
    lines = [
        f"| | {' | '.join(language.title for language in LANGUAGES.values())} |",
        f"|---|{':-:|' * len(LANGUAGES)}",
    ]
    for feature in dict.fromkeys(case.feature for case in cases):
        own = [case for case in cases if case.feature == feature]
        marks = (_mark(len(own), sum((name, case.name) in known for case in own)) for name in LANGUAGES)
        lines.append(f"| {feature} ({len(own)}) | {' | '.join(marks)} |")
    titles = {case.name: case.title for case in cases}
    lines += ["", *_reasons(titles, known)]
    return "\n".join(lines)


def _mark(all_cases: int, missing: int) -> str:
    return "✓" if not missing else f"{all_cases - missing} of {all_cases}"


def _reasons(titles: Mapping[str, str], known: Mapping[tuple[str, str], Known]) -> list[str]:
    lines = []
    for name, language in LANGUAGES.items():
        reasons: dict[str, list[str]] = {}
        for (of, case), exception in known.items():
            if of == name:
                reasons.setdefault(exception.reason, []).append(titles[case])
        for reason, missing in reasons.items():
            lines.append(f"- **{language.title}**, *{'; '.join(missing)}*: {reason}")
    return lines
