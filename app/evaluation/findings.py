"""What is wrong with a judged set and was survived: counted, with a few examples, shown in every report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from app.ingest.sources import printable

EXAMPLES = 5

KINDS = {
    "ambiguous-file": "files that were left aside, since another one of the same meaning was read",
    "bad-row": "rows that could not be used",
    "duplicate-document": "rows of the corpus with an id that came already; the first one counts, as in ingest",
    "duplicate-judgement": "judgements of a pair that was judged already; the highest grade counts",
    "duplicate-query": "queries with an id that came already; the first one counts",
    "empty-document": "documents with neither text nor title: they can't be found, and count where they are relevant",
    "empty-query": "queries without text: they are left out",
    "judged-query-missing": "queries that are judged, but have no text in the set: they are left out",
    "negative-grade": "judgements below 0: judged, and not relevant",
    "query-without-judgement": "queries that nobody judged: they are left out",
    "query-without-relevant": "judged queries without any relevant document: nothing to find, they are left out",
    "tiny-corpus": "documents are too few to say anything: every way finds the same ones",
    "unknown-document": "judged documents that the corpus lacks; relevant ones stay and count as not found",
}
"""kind -> what `count` counts and what was done about it, in words."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with the set.

    `kind` is one of `KINDS`, `count` how many there are, `detail` says it in words, with up to 5 examples.
    """

    kind: str
    count: int
    detail: str


class Findings:
    """Collects what is found, one thing at a time; keeps counts and the first examples only."""

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
        """Add what was found elsewhere, such as in another file."""
        self._counts.update(others._counts)
        for kind, examples in others._examples.items():
            self._examples[kind] = [*self._examples.get(kind, []), *examples][:EXAMPLES]

    def first(self, kind: str) -> str | None:
        """The first example of `kind`, if there is one."""
        return next(iter(self._examples.get(kind, [])), None)

    def all(self) -> tuple[Finding, ...]:
        """The findings, by kind."""
        return tuple(
            Finding(
                kind, count, f"{KINDS[kind]} ({'e.g. ' if count > EXAMPLES else ''}{_joined(self._examples[kind])})"
            )
            for kind, count in sorted(self._counts.items())
        )


def shown(text: str, longest: int = 160) -> str:
    """`text` of a set on one line, harmless to a terminal, and cut to `longest` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _joined(examples: list[str]) -> str:
    return "; ".join(examples) if any(" " in example for example in examples) else ", ".join(examples)
