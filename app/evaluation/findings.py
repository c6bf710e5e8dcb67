"""Findings: tolerated problems of a judged set, counted, with a few examples, shown in every report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from app.values import printable

EXAMPLES = 5

KINDS = {
    "ambiguous-file": "files that were ignored, since another file for the same purpose was read",
    "bad-row": "rows that could not be used",
    "duplicate-document": "rows of the corpus with a repeated id; the first one counts, as in ingest",
    "duplicate-judgement": "repeated judgements of a pair; the highest grade counts",
    "duplicate-query": "queries with a repeated id; the first one counts",
    "empty-document": "documents with neither text nor title: they can't be found, and count where they are relevant",
    "empty-query": "queries without text: they are left out",
    "judged-query-missing": "queries that are judged, but have no text in the set: they are left out",
    "negative-grade": "judgements below 0: judged, and not relevant",
    "query-without-judgement": "queries without judgements: they are left out",
    "query-without-relevant": "judged queries without any relevant document: nothing to find, they are left out",
    "tiny-corpus": "documents are too few for a comparison: every way finds the same ones",
    "unknown-document": "judged documents that the corpus lacks; relevant ones stay and count as not found",
}
"""kind -> description of what is counted and how it was handled."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the set.

    `kind` is one of `KINDS`, `count` the number of cases, `detail` a description with up to 5 examples.
    """

    kind: str
    count: int
    detail: str


class Findings:
    """Collects findings one by one; keeps counts and the first examples only."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count one more of `kind`; `example` names it (an id, or file, line and reason)."""
        self._counts[kind] += count
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(shown(example))

    def include(self, others: Findings) -> None:
        """Add the findings of another collection, such as of another file."""
        self._counts.update(others._counts)
        for kind, examples in others._examples.items():
            self._examples[kind] = [*self._examples.get(kind, []), *examples][:EXAMPLES]

    def first(self, kind: str) -> str | None:
        """Return the first example of `kind`, or None."""
        return next(iter(self._examples.get(kind, [])), None)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings, sorted by kind."""
        return tuple(
            Finding(
                kind, count, f"{KINDS[kind]} ({'e.g. ' if count > EXAMPLES else ''}{_joined(self._examples[kind])})"
            )
            for kind, count in sorted(self._counts.items())
        )


def shown(text: str, longest: int = 160) -> str:
    """Return `text` on one line, safe for a terminal, cut to `longest` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _joined(examples: list[str]) -> str:
    return "; ".join(examples) if any(" " in example for example in examples) else ", ".join(examples)
