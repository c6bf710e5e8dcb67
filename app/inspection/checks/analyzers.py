"""Analyzers of the index and of queries: words that a query makes, but no document has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from app.inspection.fields import all_fields
from app.inspection.findings import Finding, Severity, ok, skipped
from app.inspection.subject import Subject

_TEXTS, _CHARACTERS = 10, 2000
_LOST = 0.02
"""Share of a query's words that may be missing."""


def check_analyzers(subject: Subject) -> Iterator[Finding]:
    """Yield whether queries are analysed into the words that the index holds.

    Sampled texts are analysed both ways: a query that quotes a passage must find each of its words there.
    """
    field = subject.text_field
    texts = [document.text[:_CHARACTERS] for document in subject.sample if document.text.strip()][:_TEXTS]
    for index, mapping in subject.mappings.items():
        definition = dict(all_fields(mapping)).get(field.name)
        if definition is None:
            continue
        indexing, searching = _names(definition, subject.settings.get(index, {}))
        if indexing == searching:
            yield ok("Index and queries are analysed alike", f"{index}: {field.name} uses {indexing} for both")
            continue
        if not texts:
            yield skipped("Analyzers", f"{field.name} has no text in _source to analyse")
            continue
        path = f"/{quote(index, safe='')}/_analyze"
        stored = _tokens(subject.reader.get(path, {"analyzer": indexing, "text": texts}))
        asked = _tokens(subject.reader.get(path, {"analyzer": searching, "text": texts}), synonyms=False)
        lost = sorted(asked - stored)
        share = len(lost) / max(1, len(asked))
        told = (
            f"{index}: {field.name} is indexed by {indexing} and searched by {searching}; of {len(asked)} different "
            f"words of {len(texts)} passages, {len(lost)} are not in the index as a query makes them"
        )
        figures = {"index": indexing, "search": searching, "words": len(asked), "lost": len(lost)}
        if share > _LOST:
            yield Finding(
                Severity.CRITICAL if share > 0.25 else Severity.WARNING,
                "Queries are analysed into words that the index does not hold",
                f"{told}, such as {', '.join(lost[:5])}",
                f"remove search_analyzer from {field.name}, or reindex with an analyzer that makes the same words",
                figures,
            )
        else:
            yield ok("The analyzers fit", told, figures=figures)


def _names(definition: Mapping[str, Any], settings: Mapping[str, str]) -> tuple[str, str]:
    """Return the analyzers of the index and of queries, by OpenSearch's own order."""
    default = "default" if any(name.startswith("index.analysis.analyzer.default.") for name in settings) else "standard"
    searched = any(name.startswith("index.analysis.analyzer.default_search.") for name in settings)
    indexing = str(definition.get("analyzer") or default)
    fallback = "default_search" if searched and "analyzer" not in definition else indexing
    return indexing, str(definition.get("search_analyzer") or fallback)


def _tokens(answer: Mapping[str, Any], *, synonyms: bool = True) -> set[str]:
    return {
        str(token["token"]) for token in answer.get("tokens", []) if synonyms or str(token.get("type")) != "SYNONYM"
    }
