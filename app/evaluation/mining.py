"""Mining of hard negatives for distillation: the store's results for queries, with the passages' texts.

The requests are those of a search, with the same clauses, so that only passages visible to the tenant are mined. The
legs are collected within the limits of `collect.Load`; each passage is read once, a few hundred per request.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.evaluation.collect import Load, Progress, QueryLegs, RateLimiter, collect, require_majority
from app.evaluation.target import EvaluationTarget, evaluation_call, query_vectors, require_whole
from app.passage import Hit, embedding_text
from app.search.fusion import FusedCandidate, fuse_linear
from app.search.retrieval import Retrieval
from app.search.stages import Passages
from app.search.trace import Trace
from app.search.weighting import Weight, learned_weight, model_for
from app.sentences import sentence_spans
from app.store.sampling import PassageSample
from app.tuning import Tuning
from reranker.rankings import Candidate, Ranking

Labels = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> 1 or 0."""

_TIMEOUT_MS = 60_000
_READ_AT_ONCE = 200
"""Passages per request."""
_FEWEST_WORDS, _MOST_WORDS = 3, 24
"""Minimum and maximum number of words of a query made from a passage."""


@dataclass(frozen=True, slots=True)
class MiningResult:
    """Queries with their candidates, best first; failed queries with the reason."""

    rankings: list[Ranking]
    failed: dict[str, str]
    without: int
    """Number of queries without results."""


def mine(
    queries: Mapping[str, str],
    where: EvaluationTarget,
    tuning: Tuning,
    *,
    candidates: int,
    load: Load,
    kept_in: Path,
    labels: Labels | None = None,
    progress: Progress = lambda done: None,
) -> MiningResult:
    """Search `queries` as the service does, and read the first `candidates` passages of each.

    Args:
        candidates: number of candidates per query, best fused first.
        kept_in: folder for the legs, from which an interrupted run resumes.

    Raises:
        StoreUnavailable: the cluster stayed unavailable; repeat the call to resume.
        StoreError: most queries failed, or passages could not be read.
    """
    collected = collect(
        queries,
        query_vectors(queries, where.encoder),
        where,
        tuning,
        depth=where.settings.search.candidates or tuning.candidates,
        load=load,
        kept_in=kept_in / "legs.jsonl",
        progress=progress,
    )
    require_majority(collected, len(queries))
    fused = {query: _fused(legs, where, tuning)[:candidates] for query, legs in collected.legs.items()}
    texts = _texts(fused.values(), where, tuning, load)
    found = [
        Ranking(query, queries[query], tuple(_candidates(ranked, texts, (labels or {}).get(query, {}))))
        for query, ranked in fused.items()
    ]
    rankings = [ranking for ranking in found if ranking.candidates]
    return MiningResult(rankings, collected.failed, len(found) - len(rankings))


def make_queries(passages: Sequence[PassageSample], most: int, *, seed: int = 0) -> dict[str, str]:
    """Make queries from passages: titles, headings and sentences in turn, id -> text.

    They are not questions of users: a student trained on them is suited to known-item searches.
    """
    rng = random.Random(seed)  # noqa: S311 - not for security
    kinds: list[list[str]] = [[], [], []]
    for passage in passages:
        kinds[0].append(passage.title)
        kinds[1].append(" ".join(part for part in (passage.title, passage.section_heading) if part))
        kinds[2].append(_sentence(passage.text, rng))
    wanted: dict[str, None] = {}
    for row in zip(*kinds, strict=True):
        for text in row:
            words = text.split()
            if len(words) >= _FEWEST_WORDS:
                wanted[" ".join(words[:_MOST_WORDS])] = None
    chosen = list(wanted)
    rng.shuffle(chosen)
    return {query_key(text): text for text in chosen[:most]}


def query_key(text: str) -> str:
    """Return an id of 16 hex digits for a query without one."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _sentence(text: str, rng: random.Random) -> str:
    sentences = [text[begin:end] for begin, end, _ in sentence_spans(text)]
    long_enough = [item for item in sentences if len(item.split()) >= _FEWEST_WORDS]
    return rng.choice(long_enough) if long_enough else ""


def _fused(legs: QueryLegs, where: EvaluationTarget, tuning: Tuning) -> list[FusedCandidate]:
    """Fuse the legs as a search does: with the learned weight, if there is one."""
    fixed = Weight(tuning.alpha if where.settings.search.alpha is None else where.settings.search.alpha, "default", "")
    model = model_for(tuning, where.encoder.name, where.calibration) if where.settings.search.alpha is None else None
    weight = fixed if model is None else learned_weight(model, fixed, legs.query, legs.lexical, legs.dense)
    return fuse_linear(legs.lexical, legs.dense, weight.alpha, normalization=tuning.normalization, bonus=legs.bonus)


def _candidates(
    ranked: Sequence[FusedCandidate], texts: Mapping[str, str], labels: Mapping[str, int]
) -> Iterator[Candidate]:
    for item in ranked:
        if text := texts.get(item.id):
            yield Candidate(item.id, text, item.score, float(labels[item.id]) if item.id in labels else None)


def _texts(
    fused: Iterable[Sequence[FusedCandidate]], where: EvaluationTarget, tuning: Tuning, load: Load
) -> dict[str, str]:
    """Return passage id -> text for the reranker; passages that were deleted meanwhile are missing."""
    hits = read_hits([item.id for ranked in fused for item in ranked], where, tuning, load)
    return {key: embedding_text(hit.title, hit.section_heading, hit.text) for key, hit in hits.items()}


def read_hits(passage_ids: Sequence[str], where: EvaluationTarget, tuning: Tuning, load: Load) -> dict[str, Hit]:
    """Return the passages by id, each read once; those that were deleted meanwhile are missing. Raises StoreError."""
    ids = list(dict.fromkeys(passage_ids))
    pace = RateLimiter(load.rate)
    found: dict[str, Hit] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as worker:
        retrieval = Retrieval(where.cluster, worker)
        for start in range(0, len(ids), _READ_AT_ONCE):
            pace.wait()
            call = evaluation_call("-", tenant=where.tenant, tuning=tuning, depth=_READ_AT_ONCE, timeout_ms=_TIMEOUT_MS)
            trace = Trace()
            passages = retrieval.read(call, trace, Passages(), ids[start : start + _READ_AT_ONCE])
            require_whole(trace)
            found |= passages.hits
    return found
