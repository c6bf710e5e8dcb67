"""Hard negatives: what the store's own legs find for queries, with the passages' texts, as a distillation needs them.

The requests are those of a search, by the same clauses, so nothing is mined that this tenant can't find. The legs are
collected within the bounds of `collect.Load`; the passages are read once each, a few hundred at a time.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.deadline import Deadline
from app.evaluation.collect import Load, Pace, PartialAnswer, Progress, QueryLegs, collect, require_most
from app.evaluation.where import Where, query_vectors
from app.passage import embedding_text
from app.querytext import read_query
from app.search.fusion import Fused, fuse_linear
from app.search.request import SearchRequest
from app.search.retrieval import Retrieval, Run
from app.search.weighting import Weight, learned_weight, model_for
from app.sentences import sentence_spans
from app.store.filters import Scope, clauses
from app.store.sampling import Sampled
from app.tuning import Tuning
from reranker.rankings import Candidate, Ranking

Labels = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> 1 or 0."""

_TIMEOUT_MS = 60_000
_READ_AT_ONCE = 200
"""Passages of one request."""
_FEWEST_WORDS, _MOST_WORDS = 3, 24
"""Of a query that is made from a passage."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Queries with their candidates, best first; queries that failed, with the reason."""

    rankings: list[Ranking]
    failed: dict[str, str]
    without: int
    """Queries for which nothing was found."""


def mine(
    queries: Mapping[str, str],
    where: Where,
    tuning: Tuning,
    *,
    candidates: int,
    load: Load,
    kept_in: Path,
    labels: Labels | None = None,
    progress: Progress = lambda done: None,
) -> Mined:
    """Search `queries` as the service would, and read the first `candidates` passages of each.

    Args:
        queries: id -> text.
        where: what is searched, for which tenant.
        tuning: in force.
        candidates: of each query, best fused first.
        load: bound on the work.
        kept_in: folder for the legs, so that a run that broke off goes on.
        labels: what was said of passages.
        progress: told how many queries more are searched.

    Raises:
        StoreUnavailable: the cluster stayed away; the same call again goes on where it was.
        StoreError: most queries failed, or passages could not be read.
    """
    collected = collect(
        queries,
        query_vectors(queries, where.encoder),
        cluster=where.cluster,
        tenant=where.tenant,
        tuning=tuning,
        depth=where.settings.candidates or tuning.candidates,
        load=load,
        kept_in=kept_in / "legs.jsonl",
        progress=progress,
    )
    require_most(collected, len(queries))
    fused = {query: _fused(legs, where, tuning)[:candidates] for query, legs in collected.legs.items()}
    texts = _texts(fused.values(), where, tuning, load)
    found = [
        Ranking(query, queries[query], tuple(_candidates(ranked, texts, (labels or {}).get(query, {}))))
        for query, ranked in fused.items()
    ]
    rankings = [ranking for ranking in found if ranking.candidates]
    return Mined(rankings, collected.failed, len(found) - len(rankings))


def made_queries(passages: Sequence[Sampled], most: int, *, seed: int = 0) -> dict[str, str]:
    """Queries for those who have none: titles, headings and sentences of passages in turn, id -> text.

    They are no questions that anybody asked: a student taught by them is one for known-item searches.
    """
    rng = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
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
    """An id for a query that has none, 16 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _sentence(text: str, rng: random.Random) -> str:
    sentences = [text[begin:end] for begin, end, _ in sentence_spans(text)]
    long_enough = [item for item in sentences if len(item.split()) >= _FEWEST_WORDS]
    return rng.choice(long_enough) if long_enough else ""


def _fused(legs: QueryLegs, where: Where, tuning: Tuning) -> list[Fused]:
    """As a search fuses them: by the learned weight where there is one."""
    fixed = Weight(tuning.alpha if where.settings.alpha is None else where.settings.alpha, "default", "")
    model = model_for(tuning, where.encoder.name) if where.settings.alpha is None else None
    weight = fixed if model is None else learned_weight(model, fixed, legs.query, legs.lexical, legs.dense)
    return fuse_linear(legs.lexical, legs.dense, weight.alpha, normalization=tuning.normalization, bonus=legs.bonus)


def _candidates(ranked: Sequence[Fused], texts: Mapping[str, str], labels: Mapping[str, int]) -> Iterator[Candidate]:
    for item in ranked:
        if text := texts.get(item.id):
            yield Candidate(item.id, text, item.score, float(labels[item.id]) if item.id in labels else None)


def _texts(fused: Iterable[Sequence[Fused]], where: Where, tuning: Tuning, load: Load) -> dict[str, str]:
    """Passage id -> what a reranker reads of it; passages that were deleted meanwhile are missing."""
    ids = list(dict.fromkeys(item.id for ranked in fused for item in ranked))
    pace = Pace(load.rate)
    found: dict[str, str] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as worker:
        retrieval = Retrieval(where.cluster, worker)
        for start in range(0, len(ids), _READ_AT_ONCE):
            pace.wait()
            run = _run(where, tuning)
            retrieval.read(run, ids[start : start + _READ_AT_ONCE])
            if run.degraded:
                raise PartialAnswer("; ".join(item.reason for item in run.degraded))
            found |= {
                key: embedding_text(hit.title, hit.section_heading, hit.text) for key, hit in run.passages.items()
            }
    return found


def _run(where: Where, tuning: Tuning) -> Run:
    return Run(
        request=SearchRequest(query="-", size=1),
        query=read_query("-"),
        tuning=tuning,
        deadline=Deadline.after(_TIMEOUT_MS),
        filters=clauses(Scope(where.tenant)),
        depth=_READ_AT_ONCE,
    )
