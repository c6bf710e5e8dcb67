"""What `braid tune` makes of a reranker: its share and depth, adopted where they gain, left where they do not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.errors import RerankerError
from app.evaluation.dataset import split_queries
from app.evaluation.tune import HELD_OUT, TuningResult
from app.tuning import RerankTuning, Tuning
from tests.unit.evaluation.legs import Told
from tests.unit.evaluation.test_tune import FIXED, Bench, bench, kept, leg, noise, queries

COUNT = 60
RELEVANT = {text: query for query, text in queries(2 * COUNT).items()}
"""Query -> its one relevant passage."""


def fair(draw: random.Random, relevant: bool) -> float:
    """Scores of a leg that is right more often than not."""
    return max(0.1, draw.gauss(7 if relevant else 5, 1.2))


def reranked(told: Told, *, count: int = COUNT, score: Any = fair, **settings: Any) -> Bench:
    found = bench(count, lambda query, body: leg(query, "l", score), lambda query: leg(query, "d", score))
    found.reranker, found.settings = told, settings
    return found


def telling(right: float, wrong: float, **about: Any) -> Told:
    """A reranker that gives the relevant passage one score and all others another."""
    return Told(lambda query, name: right if RELEVANT[query] == name else wrong, **about)


def guessing(**about: Any) -> Told:
    return Told(lambda query, name: random.Random(f"{query} {name}").random(), **about)


def step(found: TuningResult, tried: str) -> float:
    (value,) = [item.value for item in found.steps if item.tried == tried]
    return value


def test_a_better_share_is_adopted_and_checked_with_the_reranker() -> None:
    found = reranked(telling(0.9, 0.1, weight=0.1), count=2 * COUNT).tune()
    rerank = found.tuning.rerank
    assert rerank is not None
    assert (rerank.reranker, rerank.depth) == ("told", 20)
    assert rerank.weight > 0.3
    assert found.better
    assert f"reranker's share {rerank.weight:g}, 20 deep" in kept(found)
    before = step(found, "reranker's share 0.1, 20 deep: as it is")
    assert step(found, "without the reranker: for comparison") < before < step(found, kept(found)[-1])
    assert found.held_out["before"].means["NDCG@10"] > step(found, "without the reranker: for comparison") - 0.1
    assert found.held_out["tuned"].means["NDCG@10"] > 0.9
    assert found.tuning.about["reranker"] == "told"
    assert Tuning.model_validate_json(found.tuning.model_dump_json()) == found.tuning
    assert not [note for note in found.notes if "rerank" in note]


def test_a_share_that_is_as_good_as_any_stays() -> None:
    found = reranked(telling(1.0, 0.0, weight=0.8)).tune()
    assert found.tuning.rerank is None
    assert "reranker's share 0.8, 20 deep: as it is" in kept(found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_guesses_prove_nothing(seed: int) -> None:
    found = reranked(guessing(weight=0.5), score=noise).tune(seed=seed)
    assert not found.better


def test_a_reranker_that_harms_gets_no_share_and_is_named() -> None:
    found = reranked(telling(0.0, 0.9, weight=0.8)).tune()
    assert found.tuning.rerank == RerankTuning(reranker="told", weight=0.0, depth=20)
    assert found.better
    assert found.held_out["tuned"].means["NDCG@10"] > found.held_out["before"].means["NDCG@10"] + 0.2
    assert any("told does not help here" in note and "BRAID_RERANK_DEFAULT" in note for note in found.notes)


def test_no_deeper_than_the_reranker_is_meant_to_go() -> None:
    told = telling(0.9, 0.1, depth=20)
    reranked(told).tune()
    assert max(map(len, told.seen.values())) == 20


def test_deeper_where_it_may_and_that_pays() -> None:
    def buried(draw: random.Random, relevant: bool) -> float:
        return 1.0 if relevant else draw.uniform(2, 8)

    start = FIXED.model_copy(update={"rerank": RerankTuning(reranker="told", weight=0.9, depth=20)})
    told = telling(1.0, 0.0, depth=50)
    found = reranked(told, score=buried).tune(start)
    assert "reranker's share 0.9, 20 deep: as it is" in kept(found)
    assert found.tuning.rerank is not None
    assert found.tuning.rerank.depth == 50
    assert found.better


def test_never_deeper_than_there_are_candidates() -> None:
    told = telling(0.9, 0.1, weight=0.1, depth=50)
    start = FIXED.model_copy(update={"candidates": 10})
    found = reranked(told).tune(start)
    assert found.tuning.candidates >= 10
    assert found.tuning.rerank is not None
    assert found.tuning.rerank.depth <= found.tuning.candidates
    assert max(map(len, told.seen.values())) <= found.tuning.candidates


def test_what_is_set_goes_before_a_tuning() -> None:
    told = telling(0.9, 0.1, weight=0.1)
    assert reranked(told, rerank_weight=0.1, rerank_depth=15).tune().tuning.rerank is None
    assert max(map(len, told.seen.values())) == 15
    found = reranked(telling(0.9, 0.1, weight=0.1), rerank_depth=15).tune()
    assert found.tuning.rerank is not None
    assert (found.tuning.rerank.depth, found.tuning.rerank.weight > 0.3) == (15, True)


def test_searches_that_are_not_reranked_by_default_are_tuned_without() -> None:
    told = telling(0.9, 0.1)
    found = reranked(told, rerank_default=False).tune()
    assert found.tuning.rerank is None
    assert told.seen == {}
    assert found.tuning.about["reranker"] is None
    assert any("BRAID_RERANK_DEFAULT" in note for note in found.notes)


def test_what_was_tuned_for_another_reranker_stays_until_this_one_has_its_own() -> None:
    another = RerankTuning(reranker="another", weight=0.3, depth=7)
    start = FIXED.model_copy(update={"rerank": another})
    assert reranked(telling(1.0, 0.0, weight=0.8)).tune(start).tuning.rerank == another
    replaced = reranked(telling(0.9, 0.1, weight=0.1)).tune(start).tuning.rerank
    assert replaced is not None
    assert replaced.reranker == "told"
    without = reranked(telling(0.9, 0.1))
    without.reranker = None
    found = without.tune(start)
    assert found.tuning.rerank == another
    assert any("no reranker is configured, so reranking was not tuned" in note for note in found.notes)


def test_queries_that_could_not_be_reranked_are_no_gain_and_no_loss() -> None:
    told = telling(1.0, 0.0, weight=0.8)
    case = reranked(told)
    held, tuned_on = split_queries(case.judged, share=HELD_OUT, seed=0)
    unlucky = [*list(held.queries)[:3], *list(tuned_on.queries)[:5]]
    texts = {case.judged.queries[query] for query in unlucky}
    asked: dict[str, int] = {}

    def failing(query: str) -> RerankerError | None:
        asked[query] = asked.get(query, 0) + 1
        # the held-out ones fail for the tuning before, and answer for the one after it
        return RerankerError("broken") if query in texts and asked[query] == 1 else None

    told.failing = failing
    found = case.tune()
    assert found.failed == dict.fromkeys(unlucky, "reranker-error: broken")
    assert found.held_out["before"].per_query["NDCG@10"].keys() == set(held.queries) - set(unlucky)
    assert found.held_out["before"].missing == found.held_out["tuned"].missing == 0
    assert found.tuning.rerank is None


def test_where_most_can_not_be_reranked_nothing_is_tuned() -> None:
    told = telling(0.9, 0.1)
    told.failing = lambda query: RerankerError("broken")
    with pytest.raises(RerankerError, match=r"\d+ of \d+ queries could not be reranked \(reranker-error: broken\)"):
        reranked(told).tune()
