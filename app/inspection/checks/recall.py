"""Recall of the vector search: the graph's answer against an exact one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from app.errors import StoreUnavailable
from app.inspection.findings import Bars, Finding, Severity, ok
from app.inspection.subject import ProbeQuery, Subject

DEPTHS = (10, 100)
GOOD, POOR = 0.95, 0.8
_TIED = 20
"""Further exact hits that are read, to see which have the score of the last one."""
_SHARE = 0.4
"""Share of the remaining time that a check may take."""
_ENOUGH = 5
_SAME = 1e-5
_RAISE = (
    "raise ef_search (index.knn.algo_param.ef_search, or method_parameters in the query), then m and ef_construction "
    "(a new index); for quantised vectors rescore with an oversample_factor, for IVF raise nprobes"
)


@dataclass(frozen=True, slots=True)
class RecallSample:
    """One query: recall by depth (0..1), hits of the graph, hits that exist, and copies of the query's own document."""

    recall: dict[int, float]
    returned: int
    expected: int
    copies: int


def measure_recall(subject: Subject, probe: ProbeQuery, query_filter: Mapping[str, Any] | None = None) -> RecallSample:
    """Compare the k-NN query of a probe, with `query_filter` inside, with exact scores. The probe's own document does
    not count.
    """
    assert probe.vector is not None  # noqa: S101 - all probes have one
    most = max(DEPTHS) + 1
    exact = subject.candidates(subject.exact(probe.vector, query_filter), most + _TIED)
    found = subject.candidates(subject.dense(probe.vector, most, query_filter), most)
    own = next((item.score for item in exact if item.id == probe.own), None)
    copies = 0 if own is None else sum(abs(item.score - own) <= _SAME * abs(own) for item in exact) - 1
    truth = [item for item in exact if item.id != probe.own]
    answer = [item.id for item in found if item.id != probe.own]
    recall = {}
    for depth in DEPTHS:
        wanted = min(depth, len(truth))
        if not wanted:
            recall[depth] = 1.0
            continue
        last = truth[wanted - 1].score
        accepted = {item.id for item in truth if item.score >= last - _SAME * abs(last)}
        recall[depth] = min(1.0, len(accepted.intersection(answer[:depth])) / wanted)
    return RecallSample(recall, len(answer), min(most - 1, len(truth)), copies)


def measure_all(
    subject: Subject, query_filter: Mapping[str, Any] | None = None, share: float = _SHARE
) -> list[RecallSample]:
    """Measure the probes one by one, for at most `share` of the time that is left.

    Raises:
        StoreUnavailable: an exact search took longer than a request may; the message has the remedy.
    """
    until = time.monotonic() + share * subject.reader.budget.remaining_s("recall")
    samples: list[RecallSample] = []
    for probe in subject.probes:
        try:
            samples.append(measure_recall(subject, probe, query_filter))
        except StoreUnavailable as error:
            if len(samples) >= _ENOUGH:
                break
            raise StoreUnavailable(
                f"an exact search of {subject.vectors:,} vectors takes longer than {subject.reader.timeout_s:g} s: "
                f"pass a longer --timeout and --budget ({error.detail})"
            ) from error
        if time.monotonic() > until:
            break
    return samples


def check_recall(subject: Subject) -> Iterator[Finding]:
    """Yield recall@10 and recall@100 of the k-NN query against exact scores, and hits that are missing or doubled."""
    samples = measure_all(subject)
    recall = {depth: fmean(sample.recall[depth] for sample in samples) for depth in DEPTHS}
    worst = min(sample.recall[10] for sample in samples)
    of_user = any(probe.own is None for probe in subject.probes[:1])
    made = "queries of --queries" if of_user else "stored vectors as queries (real queries lie further off)"
    told = (
        f"recall@10 {recall[10]:.3f}, recall@100 {recall[100]:.3f}, lowest recall@10 {worst:.2f}; {len(samples)} {made}"
        f"; {subject.vector_field.described}"
    )
    figures: dict[str, Any] = {"recall@10": recall[10], "recall@100": recall[100], "queries": len(samples)}
    plot = Bars("Queries by recall@10", "queries", _histogram([sample.recall[10] for sample in samples]))
    if min(recall.values()) >= GOOD:
        yield ok("The vector search finds what an exact one finds", told, figures=figures, plot=plot)
    else:
        severity = Severity.CRITICAL if min(recall.values()) < POOR else Severity.WARNING
        yield Finding(severity, "The vector search misses near passages", told, _RAISE, figures, plot)
    returned, expected = (sum(getattr(sample, name) for sample in samples) for name in ("returned", "expected"))
    if returned < 0.9 * expected:
        yield Finding(
            Severity.WARNING,
            "The vector search returns too few hits",
            f"{returned / len(samples):.0f} of {expected / len(samples):.0f} hits a query: a filter is applied after "
            "the search (filtered alias, document-level security), the graph falls apart, or shards hold fewer than k",
            "search the index itself, with the filter in knn.filter; raise k, m and ef_construction",
            {"returned": returned, "expected": expected},
        )
    copies = sum(sample.copies > 0 for sample in samples)
    if copies:
        yield Finding(
            Severity.WARNING if copies > len(samples) / 10 else Severity.NOTE,
            "Passages are stored more than once",
            f"{copies} of {len(samples)} sampled passages have a copy with the same vector: copies take places in "
            "every answer",
            "give documents ids made of their content, so that a second write replaces the first; collapse by a hash",
            {"sampled": len(samples), "with_copies": copies},
        )


def _histogram(values: list[float]) -> dict[str, float]:
    counts = dict.fromkeys(("below .5", *(f".{tenth}" for tenth in range(5, 10)), "1"), 0.0)
    for value in values:
        counts["1" if value >= 1 else "below .5" if value < 0.5 else f".{int(value * 10 + 1e-9)}"] += 1
    return counts
