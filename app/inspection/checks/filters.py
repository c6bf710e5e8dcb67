"""Filters and the vector search: whether a selective filter leaves it enough to find."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from statistics import fmean
from typing import Any

from app.evaluation.findings import shown
from app.inspection.checks.recall import GOOD, POOR, measure_all
from app.inspection.findings import Bars, Finding, Severity, ok, skipped
from app.inspection.subject import Subject

_CANDIDATES = 100
_WANTED_SHARE, _MOST_SHARE = 0.01, 0.2
_LEAST = 20
"""Documents that a filter must leave, so that ten hits are to be found."""
_K = 10
Clause = dict[str, Any]
Candidate = tuple[Clause, str, int]
"""A filter, its name, and the number of documents that it selects."""


def check_filters(subject: Subject) -> Iterator[Finding]:
    """Yield recall under a selective filter inside `knn`, and the hits that a filter around it leaves."""
    if (chosen := _selective(subject)) is None:
        yield skipped(
            "Filters", f"no value of a keyword field and no word selects {_LEAST} documents to {_MOST_SHARE:.0%}"
        )
        return
    clause, label, matching = chosen
    with_vector = subject.reader.count(subject.name, {"bool": {"filter": [clause, subject.with_vector]}})
    samples = measure_all(subject, clause, share=0.5)
    inside = fmean(sample.recall[_K] for sample in samples)
    wanted = min(_K, with_vector)
    left = [
        len(subject.ranked({"bool": {"must": subject.dense(probe.vector, _K), "filter": clause}}, _K))
        for probe in subject.probes[: len(samples)]
        if probe.vector is not None
    ]
    around = fmean(left)
    told = (
        f"{label} selects {matching:,} of {subject.documents:,} documents. In knn.filter: recall@{_K} {inside:.3f}. "
        f"Around knn, with k {_K}: {around:.1f} of {wanted} hits ({len(samples)} queries)"
    )
    figures = {"selected": matching, "recall_inside": inside, "hits_around": around, "wanted": wanted}
    plot = Bars(
        f"Hits of k {_K} under the filter",
        "hits",
        {"inside knn": fmean(min(_K, sample.returned) for sample in samples), "around knn": around},
        {"wanted": float(wanted)},
    )
    if inside < GOOD:
        yield Finding(
            Severity.CRITICAL if inside < POOR else Severity.WARNING,
            "A selective filter starves the vector search",
            told,
            "raise ef_search and k; use the engine faiss or lucene, which filter while they search; for filters that "
            "leave little, score exactly (script_score)",
            figures,
            plot,
        )
    elif around < wanted * GOOD:
        yield Finding(
            Severity.NOTE,
            "Filters belong into the vector leg",
            told,
            "a filter around knn (bool.filter, post_filter) is applied to its k hits only: write it into knn.filter",
            figures,
            plot,
        )
    else:
        yield ok("Filters leave the vector search enough", told, figures=figures, plot=plot)


def _selective(subject: Subject) -> Candidate | None:
    """Return a filter that selects about one percent of the documents: a value of a keyword field, else a word.

    The candidates come from sampled documents: aggregating a field of many values would cost the cluster memory.
    """
    values: dict[str, Clause] = {}
    words: dict[str, Clause] = {}
    for document in subject.sample:
        values |= {f"{name} = {value!r}": {"term": {name: value}} for name, value in document.keywords}
        if subject.text is not None:
            spoken = (word for word in document.text.split() if word.isalpha())
            words |= {f"the word {word!r}": subject.lexical(word) for word in spoken}
    for clauses in (values, words):
        named = dict(islice(clauses.items(), _CANDIDATES))
        if not named:
            continue
        body = {"size": 0, "aggs": {"each": {"filters": {"filters": named}}}, "track_total_hits": False}
        answer = subject.reader.search(subject.name, body, search_pipeline="_none")
        counts = {label: int(found["doc_count"]) for label, found in answer["aggregations"]["each"]["buckets"].items()}
        able = [label for label, count in counts.items() if _LEAST <= count <= _MOST_SHARE * subject.documents]
        if able:
            best = min(able, key=lambda label: abs(counts[label] / subject.documents - _WANTED_SHARE))
            return named[best], shown(best, 80), counts[best]
    return None
