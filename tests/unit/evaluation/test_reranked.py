"""What is measured of a reranker is what is served: the same order for the same scores, and every failure counted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BraidError, Overloaded, RerankerError, RerankerUnavailable, StoreUnavailable
from app.evaluation import reranked
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.reranked import RerankedSet, rerank_all
from app.evaluation.target import EvaluationTarget, query_vectors
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.reranking import Reranker
from app.search.service import SearchService
from app.store.filters import Scope
from app.tuning import SHIPPED, RerankTuning, Tuning
from tests.unit.evaluation.legs import CannedCluster, CannedEncoder, Told, canned_settings

FIXED = SHIPPED.model_copy(update={"learned": False})
PASSAGES = [f"d{n % 6}/{n:02}" for n in range(16)]
QUERY = "is ERR-4711 a valve"

# few values: ties are common
_VALUES = st.sampled_from([0.5, 1.0, 1.25, 2.0, 7.0, 7.01])
legs_ = st.dictionaries(st.sampled_from(PASSAGES), _VALUES, max_size=14)
_RERANKED = st.fixed_dictionaries(
    {name: st.sampled_from([0.0, 0.2, 0.2, 0.6, 0.9, 1.0, math.nan]) for name in PASSAGES}
)


def where(
    cluster: CannedCluster, reranker: Reranker | None, encoder: CannedEncoder | None = None, **options: Any
) -> EvaluationTarget:
    canned: Any = encoder or CannedEncoder(cluster.known)
    return EvaluationTarget(cluster, "default", canned, canned_settings(**options), 1, reranker=reranker)


def served(at: EvaluationTarget, tuning: Tuning, query: str) -> list[str]:
    """Documents as `SearchService` orders them where the request says nothing but how many it wants."""
    state = StoreState((), shards=1, native_rrf_across_shards=False, tuning=tuning)
    with ThreadPoolExecutor(4) as executor:
        gate = ReadinessGate(lambda: state, executor)
        service = SearchService(at.settings, at.cluster, at.encoder, gate, executor, at.reranker)
        found = service.search(SearchRequest(query=query, size=tuning.candidates), Scope("default"))
    assert [item.reason.partition(":")[0] for item in found.degraded] == ["uncalibrated"]  # the canned model
    return list(dict.fromkeys(item.document_id for item in found.hits))


def measured(
    at: EvaluationTarget, tuning: Tuning, texts: Mapping[str, str], depth: int
) -> tuple[dict[str, QueryLegs], RerankedSet]:
    assert at.reranker is not None
    found = collect(
        texts,
        query_vectors(texts, at.encoder),
        at,
        tuning,
        depth=100,  # more than is used
        load=Load(),
    ).legs
    alphas = dict.fromkeys(found, tuning.alpha)
    return found, rerank_all(texts, found, alphas, at, at.reranker, tuning, depth=depth, load=Load())


@settings(deadline=None, max_examples=60)
@given(
    legs_,
    legs_,
    _RERANKED,
    st.lists(st.sampled_from(PASSAGES), max_size=2, unique=True),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([10, 40]),
    st.sampled_from([None, 0.2]),
)
def test_the_order_is_that_of_the_service(
    lexical: dict[str, float],
    dense: dict[str, float],
    scores: dict[str, float],
    exact: list[str],
    weight: float,
    depth: int,
    calibrated: bool,
    candidates: int,
    margin: float | None,
) -> None:
    cluster = CannedCluster([QUERY], lambda text, body: lexical, lambda text, body: dense)
    cluster.exact = lambda text: exact
    told = Told(lambda query, name: scores[name], calibrated=calibrated)
    at = where(cluster, told, rerank_skip_margin=margin)
    tuning = FIXED.model_copy(
        update={"candidates": candidates, "rerank": RerankTuning(reranker="told", weight=weight, depth=depth)}
    )
    _, found = measured(at, tuning, {"q": QUERY}, depth)
    # a page shows no more passages than a leg has candidates
    shown = served(at, tuning, QUERY)
    assert found.queries["q"].ranking(weight, depth, calibrated=calibrated)[: len(shown)] == shown


def one_leg(count: int = 30, **scores: float) -> CannedCluster:
    """A cluster where both legs rank documents d00, d01 ... alike."""
    ranked = {f"d{n:02}": 10.0 - n / 10 for n in range(count)} | scores
    return CannedCluster(["first", "second", "third"], lambda text, body: ranked, lambda text, body: ranked)


TEXTS = {"q1": "first", "q2": "second", "q3": "third"}


def backwards(query: str, name: str) -> float:
    return int(name[1:3]) / 100


def test_scored_once_it_ranks_at_any_weight_and_depth() -> None:
    told = Told(backwards)
    _, found = measured(where(one_leg(), told), FIXED, TEXTS, 10)
    assert {len(names) for names in told.seen.values()} == {10}
    fused = [f"d{n:02}" for n in range(30)]
    for item in found.queries.values():
        assert item.ranking(0.5, 0, calibrated=True) == item.ranking(0.0, 10, calibrated=True) == fused
        assert item.ranking(1.0, 10, calibrated=True) == [*fused[9::-1], *fused[10:]]
        assert item.ranking(1.0, 3, calibrated=True) == [*fused[2::-1], *fused[3:]]
        assert item.ranking(1.0, 99, calibrated=True) == item.ranking(1.0, 10, calibrated=True)
        assert item.milliseconds >= 0
    assert list(found.queries) == list(TEXTS)
    assert found.failed == {}


def test_no_more_is_scored_than_a_leg_has_candidates() -> None:
    told, few = (
        Told(lambda query, name: 0.9 if name[1:] in ("11", "12") else 0.1),
        FIXED.model_copy(update={"candidates": 10}),
    )
    left, right = ({f"d{n:02}": 10.0 - n for n in range(start, 20, 2)} for start in (0, 1))
    cluster = CannedCluster(["first"], lambda *_: left, lambda *_: right)
    at = where(cluster, told, rerank_depth=20)
    _, found = measured(at, few, {"q1": "first"}, 20)
    assert len(told.seen["first"]) == 10
    ranking = found.queries["q1"].ranking(told.weight, 20, calibrated=True)
    assert len(ranking) == 20
    assert ranking[:10] == served(at, few, "first")


def test_an_exact_match_stays_however_few_candidates_there_are() -> None:
    cluster = CannedCluster([QUERY], lambda text, body: {f"d{n:02}": 30.0 - n for n in range(30)}, lambda *_: {})
    cluster.exact = lambda text: ["d29"]
    at = where(cluster, Told(lambda query, name: 0.5))
    few = FIXED.model_copy(update={"candidates": 10})
    legs, found = measured(at, few, {"q": QUERY}, 5)
    assert found.queries["q"].ranking(0.5, 5, calibrated=True)[0] == "d29" == served(at, few, QUERY)[0]
    lexical, dense = legs["q"].cut(10)
    assert [item.id for item in lexical] == [*(f"d{n:02}" for n in range(10)), "d29"]
    assert dense == ()


def test_a_query_that_fails_is_told_and_the_others_are_measured() -> None:
    told = Told(backwards)
    told.failing = lambda query: RerankerError("broken") if query == "second" else None
    _, found = measured(where(one_leg(), told), FIXED, TEXTS, 10)
    assert list(found.queries) == ["q1", "q3"]
    assert found.failed == {"q2": "reranker-error: broken"}


def test_passages_that_went_meanwhile_fail_their_queries_only() -> None:
    cluster = one_leg()
    at = where(cluster, Told(backwards))
    legs, _ = measured(at, FIXED, TEXTS, 10)
    cluster.deleted = {"d03"}
    assert at.reranker is not None
    again = {"q1": legs["q1"], "q2": replace(legs["q2"], lexical=legs["q2"].lexical[5:], dense=legs["q2"].dense[5:])}
    found = rerank_all(TEXTS, again, dict.fromkeys(TEXTS, 0.4), at, at.reranker, FIXED, depth=10, load=Load())
    assert list(found.queries) == ["q2"]
    assert found.failed["q1"].startswith("partial-answer: 1 passages were deleted")


def test_what_some_shards_left_out_is_not_measured() -> None:
    cluster = one_leg()
    told = Told(backwards)
    cluster.failed_shards = lambda leg, text: int(leg == "passages")
    with pytest.raises(RerankerError, match=r"3 of 3 queries could not be reranked \(partial-answer: .*BRAID_RERANKER"):
        measured(where(cluster, told), FIXED, TEXTS, 10)


@pytest.mark.parametrize("error", [Overloaded("full"), RerankerUnavailable("away")])
def test_a_reranker_that_is_full_or_away_for_a_moment_is_waited_for(error: BraidError) -> None:
    told = Told(backwards)
    _, calm = measured(where(one_leg(), told), FIXED, TEXTS, 10)
    left = {"first": 1, "third": 1}

    def failing(query: str) -> BraidError | None:
        left[query] = left.get(query, 0) - 1
        return error if left[query] >= 0 else None

    told.failing = failing
    _, found = measured(where(one_leg(), told), FIXED, TEXTS, 10)
    assert found.failed == {}
    assert [item.scores.tolist() for item in found.queries.values()] == [
        item.scores.tolist() for item in calm.queries.values()
    ]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RerankerUnavailable("gone."), RerankerUnavailable), (StoreUnavailable("gone."), StoreUnavailable)],
)
def test_one_that_stays_away_ends_the_run(
    error: BraidError, raised: type[BraidError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranked, "_PATIENCE_S", 0.2)
    cluster, told = one_leg(), Told(backwards)
    if isinstance(error, StoreUnavailable):
        gone = error
        cluster.away = lambda: gone
    else:
        told.failing = lambda query: error
    began = time.monotonic()
    with pytest.raises(raised, match=r"gone\. 0 of 3 queries were reranked; run the command again"):
        measured(where(cluster, told), FIXED, TEXTS, 10)
    assert time.monotonic() - began < 10


def test_an_end_from_outside_does_not_wait_for_the_queries_that_are_left() -> None:
    begun = threading.Semaphore(0)
    texts = {f"q{n}": f"text {n}" for n in range(40)}

    def slow(query: str, name: str) -> float:
        begun.release()
        time.sleep(0.01)
        return 0.5

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    ranked = {f"d{n:02}": 10.0 - n for n in range(5)}
    at = where(CannedCluster(list(texts.values()), lambda *_: ranked, lambda *_: ranked), Told(slow))
    legs, _ = measured(where(at.cluster, Told(backwards)), FIXED, texts, 5)  # type: ignore[arg-type]
    assert at.reranker is not None
    with pytest.raises(KeyboardInterrupt):
        rerank_all(texts, legs, dict.fromkeys(legs, 0.4), at, at.reranker, FIXED, depth=5, load=Load(), progress=stop)
    scored = 0
    while begun.acquire(blocking=False):
        scored += 1
    assert scored <= 20 * 5


def test_the_rate_bounds_reranking_too() -> None:
    cluster = one_leg()
    at = where(cluster, Told(backwards))
    legs, _ = measured(at, FIXED, TEXTS, 10)
    assert at.reranker is not None
    began = time.monotonic()
    load = Load(workers=3, rate=20)
    rerank_all(TEXTS, legs, dict.fromkeys(legs, 0.4), at, at.reranker, FIXED, depth=10, load=load)
    assert time.monotonic() - began >= 2 / 20
