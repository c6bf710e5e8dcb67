"""Hybrid queries as the index answers them: delimiter scores, doubled hits, and fusion over shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from app.inspection.findings import Finding, Severity, ok, skipped
from app.inspection.subject import ProbeQuery, Subject
from app.passage import Candidate
from app.search.fusion import fuse_rrf
from app.store.client import StoreRequestError

_QUERIES = 5
_DEPTH, _SIZE, _RANK_CONSTANT = 100, 10, 60
_MOST_SHARDS = 24
"""Shards above which the oracle would need too many requests."""
_RRF = {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": _RANK_CONSTANT}}}
_EXACT = 0.98
"""Agreement with an oracle above which they rank alike; ties may differ."""
_REMEDY = (
    "set index.search.default_pipeline to a search pipeline with a normalization-processor, or name it in each "
    "search (?search_pipeline=NAME; check that one with --pipeline NAME)"
)


def check_hybrid(subject: Subject) -> Iterator[Finding]:
    """Yield whether hybrid queries are fused, by the index's default pipeline or the one that its clients name."""
    scores: list[float] = []
    doubled = 0
    probes = subject.probes[:_QUERIES]
    for probe in probes:
        try:
            hits = _hybrid(subject, probe, 2 * _SIZE, subject.pipeline)
        except StoreRequestError as error:
            if error.status_code != 400:
                raise
            yield Finding(
                Severity.CRITICAL,
                "A hybrid query is refused",
                error.detail,
                "install opensearch-neural-search on every node; create the search pipeline that the settings name; "
                "nothing may wrap a hybrid query (document-level security, a filtered alias, a filter_query processor)",
            )
            return
        scores += [hit.score for hit in hits]
        doubled += len(hits) - len({hit.id for hit in hits})
    if scores and min(scores) < 0:
        yield Finding(
            Severity.CRITICAL,
            "Hybrid queries are not fused: hits have delimiter scores",
            f"scores down to {min(scores):.4g}, {doubled} doubled hits among {len(scores)} of {len(probes)} queries, "
            "with status 200: no search pipeline ran",
            _REMEDY,
            {"lowest_score": min(scores), "doubled_hits": doubled, "hits": len(scores)},
        )
    elif doubled:
        yield Finding(
            Severity.CRITICAL,
            "Hybrid queries return hits twice",
            f"{doubled} of {len(scores)} hits are doubled: the indexes behind the name hold the same documents",
            "remove from the alias the index that was replaced",
            {"doubled_hits": doubled, "hits": len(scores)},
        )
    else:
        yield ok("Hybrid queries are fused", f"{len(scores)} hits, none doubled, no delimiter score")


def check_fusion(subject: Subject) -> Iterator[Finding]:
    """Yield whether native reciprocal rank fusion ranks over all shards, against an oracle made from the legs.

    The pipeline is sent with the query; none is created.
    """
    places = [(index, shard) for index in subject.mappings for shard in range(_shards(subject, index))]
    if len(places) == 1:
        yield ok("Reciprocal rank fusion has one shard to rank", "native RRF and an oracle can't differ")
        return
    if len(places) > _MOST_SHARDS:
        yield skipped("Fusion over shards", f"the oracle reads each of {len(places)} shards; {_MOST_SHARDS} at most")
        return
    across, within = [], []
    for probe in subject.probes[:_QUERIES]:
        native = [hit.id for hit in _hybrid(subject, probe, _SIZE, {"phase_results_processors": [_RRF]})]
        legs = [_legs(subject, probe, index, shard) for index, shard in places]
        lexical, dense = (sorted(chain(*leg), key=lambda item: -item.score) for leg in zip(*legs, strict=True))
        across.append(_agreement(native, fuse_rrf(lexical, dense, _RANK_CONSTANT)))
        ranked = chain(*(fuse_rrf(left, right, _RANK_CONSTANT) for left, right in legs))
        within.append(_agreement(native, sorted(ranked, key=lambda item: -item.score)))
    figures = {"shards": len(places), "across_shards": fmean(across), "within_shards": fmean(within)}
    told = (
        f"{len(places)} shards: of the first {_SIZE} hits of native RRF, {fmean(across):.0%} are those of an oracle "
        f"that ranks over all shards, {fmean(within):.0%} those of one that "
        f"ranks within each shard ({len(across)} queries)"
    )
    if fmean(across) >= _EXACT:
        yield ok("Reciprocal rank fusion ranks over all shards", told, figures=figures)
    else:
        yield Finding(
            Severity.WARNING if _uses_rrf(subject) else Severity.NOTE,
            "Native RRF ranks within each shard",
            told,
            "use one shard, a normalization-processor, OpenSearch 3.5 or newer, or fuse the legs in the client",
            figures,
        )


def _hybrid(
    subject: Subject, probe: ProbeQuery, size: int, pipeline: str | Mapping[str, Any] | None
) -> list[Candidate]:
    assert probe.vector is not None  # noqa: S101 - all probes have one
    query = subject.hybrid(probe.text, probe.vector, _DEPTH)
    return subject.candidates(query, size, pipeline=pipeline)


def _legs(subject: Subject, probe: ProbeQuery, index: str, shard: int) -> tuple[list[Candidate], list[Candidate]]:
    assert probe.vector is not None  # noqa: S101 - all probes have one
    lexical, dense = (
        subject.candidates(leg, _DEPTH, index, preference=f"_shards:{shard}")
        for leg in (subject.lexical(probe.text), subject.dense(probe.vector, _DEPTH))
    )
    return lexical, dense


def _agreement(native: Sequence[str], oracle: Sequence[Any]) -> float:
    """Return the share of `native` among the oracle's first hits, where those with the last one's score all count."""
    if not native:
        return 1.0
    last = oracle[min(len(native), len(oracle)) - 1].score
    return len({item.id for item in oracle if item.score >= last - 1e-9} & set(native)) / len(native)


def _shards(subject: Subject, index: str) -> int:
    return int(subject.settings[index]["index.number_of_shards"])


def _uses_rrf(subject: Subject) -> bool:
    """Return whether a default search pipeline of the index fuses by rank."""
    names = {found.get("index.search.default_pipeline", "_none") for found in subject.settings.values()} - {"_none"}
    pipelines = (subject.reader.find(f"/_search/pipeline/{name}") or {} for name in names)
    parts = chain(*(body.get("phase_results_processors", []) for found in pipelines for body in found.values()))
    return any("score-ranker-processor" in part for part in parts)
