"""What a search for better settings adopts, on answers that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.errors import InvalidInput, StoreError
from app.evaluation import learning
from app.evaluation.collect import Load
from app.evaluation.dataset import JudgedSet, sample_queries, split_queries
from app.evaluation.scratch import ScratchIndex
from app.evaluation.target import EvaluationTarget
from app.evaluation.tune import HELD_OUT, TuningResult, tune
from app.ingest.run_report import IngestReport
from app.search.reranking import Reranker
from app.search.weighting import model_for
from app.store.client import StoreRequestError
from app.store.queries import TIES
from app.tuning import SHIPPED, Bm25, Boosts, Tuning
from tests.unit.evaluation.legs import CannedCluster, CannedEncoder, Scores, canned_settings
from tests.unit.evaluation.sets import judged_set

SYLLABLES = ["".join((a, b)) for a in "bdfgklmnprstvz" for b in "aeiou"]
FIXED = SHIPPED.model_copy(update={"learned": False})


def queries(count: int) -> dict[str, str]:
    """Texts that no other holds, of two words each."""
    words = [first + second + first for first in SYLLABLES for second in SYLLABLES][: 2 * count]
    return {f"q{number}": f"{words[2 * number]} {words[2 * number + 1]}" for number in range(count)}


def leg(query_id: str, seed: str, score: Callable[[random.Random, bool], float]) -> Scores:
    """Thirty passages of which one, named as the query, is relevant; always the same for a query."""
    draw = random.Random(f"{seed} {query_id}")
    return {name: score(draw, name == query_id) for name in (query_id, *(f"d{n}" for n in range(29)))}


def good(draw: random.Random, relevant: bool) -> float:
    return 10.0 if relevant else draw.uniform(1, 8)


def noise(draw: random.Random, relevant: bool) -> float:
    return draw.uniform(1, 10)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap is most of the work of learning, and has tests of its own."""
    monkeypatch.setattr(learning, "_BOOTSTRAP", 5)


@dataclass
class Bench:
    """A set, the cluster that answers it, and the index whose similarity may be changed."""

    judged: JudgedSet
    cluster: CannedCluster
    reranker: Reranker | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def tune(self, current: Tuning = FIXED, **options: Any) -> TuningResult:
        self.said: list[str] = []
        encoder: Any = CannedEncoder(list(self.judged.queries.values()))
        where = EvaluationTarget(
            self.cluster, "default", encoder, canned_settings(**self.settings), 1, reranker=self.reranker
        )
        options.setdefault("scratch", None)
        return tune(self.judged, where, current, say=self.said.append, **options)


def bench(count: int, lexical: Callable[[str, dict[str, Any]], Scores], dense: Callable[[str], Scores]) -> Bench:
    """`lexical` and `dense` by query id."""
    texts = queries(count)
    ids = {text: query for query, text in texts.items()}
    cluster = CannedCluster(
        list(texts.values()),
        lambda text, body: lexical(ids[text], body),
        lambda text, body: dense(ids[text]),
    )
    return Bench(judged_set(texts), cluster)


def lexical_is_better(count: int = 60) -> Bench:
    return bench(count, lambda query, body: leg(query, "l", good), lambda query: leg(query, "d", noise))


class Similarity(ScratchIndex):
    """An index that only notes what similarity it has."""

    def __init__(self, cluster: CannedCluster) -> None:
        super().__init__(cluster, "braid-evaluation-canned", IngestReport())
        object.__setattr__(self, "given", [])

    given: list[Bm25]

    def similarity(self, bm25: Bm25) -> None:
        self.given.append(bm25)


def kept(found: TuningResult) -> list[str]:
    return [step.tried for step in found.steps if step.kept]


def test_a_clear_gain_is_adopted_and_checked_on_other_queries() -> None:
    bench = lexical_is_better()
    found = bench.tune()
    assert found.better
    assert found.verdict.startswith("measurably better: +")
    assert found.tuning.alpha <= 0.15
    assert (found.tuning.bm25, found.tuning.boosts) == (SHIPPED.bm25, SHIPPED.boosts)
    assert found.comparison.mean_difference > 0.05
    assert found.comparison.p_randomization < 0.05
    assert found.held_out["tuned"].means["NDCG@10"] > found.held_out["before"].means["NDCG@10"]
    assert found.failed == {}
    assert any("k1 and b were not tuned" in note for note in found.notes)
    held = found.tuning.about["held out"]
    assert held["difference"] == pytest.approx(held["tuned"] - held["before"], abs=2e-4)
    assert found.tuning.about["embedding_model"] == "canned"
    assert len(bench.said) >= len(found.steps)


def test_most_queries_are_searched_on_and_the_held_out_are_others() -> None:
    bench = lexical_is_better(100)
    found = bench.tune()
    sizes = found.tuning.about["queries"]
    assert sizes["tuned on"] + sizes["held out"] == 100
    assert 0.15 < sizes["held out"] / 100 < 0.45
    held = set(found.held_out["tuned"].per_query["NDCG@10"])
    assert len(held) == sizes["held out"] == len(split_queries(bench.judged, share=HELD_OUT, seed=0)[0].queries)
    # the check begins when all is chosen: until then no held-out query was asked
    texts = [bench.judged.queries[query] for query in held]
    first = min(bench.cluster.texts("lexical").index(text) for text in texts)
    assert set(bench.cluster.texts("lexical")[first:]) == set(texts)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_not_adopted(seed: int) -> None:
    bench_ = bench(60, lambda query, body: leg(query, "l", noise), lambda query: leg(query, "d", noise))
    found = bench_.tune(seed=seed)
    assert not found.better
    assert not found.verdict.startswith("measurably better")


def test_boosts_that_move_every_query_at_random_are_no_gain() -> None:
    def lexical(query: str, body: dict[str, Any]) -> Scores:
        drawn_anew = f"l {body['query']} {body.get('rescore')}"
        return leg(query, drawn_anew, lambda draw, relevant: draw.gauss(6 if relevant else 5, 1))

    found = bench(80, lexical, lambda query: leg(query, "d", noise)).tune(FIXED.model_copy(update={"alpha": 0.1}))
    assert not found.better


def test_where_nothing_can_gain_nothing_changes() -> None:
    found = bench(40, lambda query, body: leg(query, "l", good), lambda query: leg(query, "d", good)).tune()
    assert kept(found) == ["as it is", "the share itself"]
    assert found.comparison.mean_difference == 0
    assert found.verdict.startswith("not measurably better: +0.00 points NDCG@10")
    assert not found.better
    assert not found.tuning.learned


def test_what_is_worse_on_the_held_out_queries_is_called_so() -> None:
    held = split_queries(judged_set(queries(60)), share=HELD_OUT, seed=3)[0].queries

    def score(query: str, mine: bool) -> Callable[[random.Random, bool], float]:
        return good if (query in held) == mine else noise

    found = bench(
        60,
        lambda query, body: leg(query, "l", score(query, False)),
        lambda query: leg(query, "d", score(query, True)),
    ).tune(seed=3)
    assert found.tuning.alpha < 0.3  # what the searched part wants
    assert found.verdict.startswith("worse than the active tuning: -")
    assert not found.better


def test_a_boost_that_helps_is_kept_and_one_that_does_not_is_not() -> None:
    def lexical(query: str, body: dict[str, Any]) -> Scores:
        rescored = body.get("rescore", {}).get("query", {}).get("rescore_query", {})
        phrases = [item["match_phrase"]["content"]["boost"] for item in rescored.get("bool", {}).get("should", [])
                   if "match_phrase" in item]  # fmt: skip
        return leg(query, "l", good if 0.5 in phrases else noise)

    found = bench(60, lexical, lambda query: leg(query, "d", noise)).tune()
    assert kept(found)[:2] == ["as it is", "phrase boost 0.5"]
    assert found.tuning.boosts == Boosts(phrase=0.5)
    assert found.better
    assert found.tuning.candidates == SHIPPED.candidates


def test_the_dense_leg_is_asked_for_once_however_many_boosts_are_tried() -> None:
    bench = lexical_is_better(30)
    bench.tune()
    held = split_queries(bench.judged, share=HELD_OUT, seed=0)[0].queries
    assert len(bench.cluster.texts("dense")) == (30 - len(held)) + 2 * len(held)


def test_similarity_is_searched_on_an_index_of_its_own_and_checked_with_each_its_own() -> None:
    texts = queries(60)
    ids = {text: query for query, text in texts.items()}
    cluster: CannedCluster

    def lexical(text: str, body: dict[str, Any]) -> Scores:
        return leg(ids[text], "l", good if index.given and index.given[-1].k1 == 1.6 else noise)

    cluster = CannedCluster(list(texts.values()), lexical, lambda text, body: leg(ids[text], "d", noise))
    index = Similarity(cluster)
    found = Bench(judged_set(texts), cluster).tune(scratch=index)
    assert found.tuning.bm25 == Bm25(k1=1.6, b=0.75)
    assert "k1 1.6, b 0.75" in kept(found)
    assert found.better
    assert index.given[-3:] == [Bm25(k1=1.6), Bm25(), Bm25(k1=1.6)]  # the best, the one in force, the best
    assert not any("k1 and b were not tuned" in note for note in found.notes)


def test_a_depth_beyond_those_that_are_tried_is_measured_as_it_is() -> None:
    bench = lexical_is_better(30)
    bench.tune(FIXED.model_copy(update={"candidates": 500}))
    assert max(body["size"] for body in bench.cluster.bodies) == 500 + TIES


def test_the_weight_of_each_query_is_learned_where_that_is_better() -> None:
    """Texts that are questions need the dense leg, all others the lexical one; scores say which is which."""
    plain = queries(120)
    texts = {query: (f"why is {text}?" if n % 2 else text) for n, (query, text) in enumerate(plain.items())}
    ids = {text: query for query, text in texts.items()}

    def answer(seed: str, when: bool) -> Callable[[str, dict[str, Any]], Scores]:
        return lambda text, body: leg(ids[text], seed, good if text.endswith("?") == when else noise)

    cluster = CannedCluster(list(texts.values()), answer("l", False), answer("d", True))
    found = Bench(judged_set(texts), cluster).tune(FIXED)
    assert found.better
    assert found.tuning.learned
    assert found.tuning.weight_model is not None
    assert model_for(found.tuning, "canned", None) == found.tuning.weight_model
    assert "weight of each query: model trained here, cross-validated" in kept(found)
    assert Tuning.model_validate_json(found.tuning.model_dump_json()) == found.tuning


def test_few_queries_teach_no_model() -> None:
    found = lexical_is_better(60).tune(SHIPPED)
    assert not found.tuning.learned
    assert found.tuning.weight_model is None
    assert not [step for step in found.steps if "trained here" in step.tried]


@pytest.mark.parametrize("texts", [{}, {"q": "lamu depo"}, {"q": "lamu depo", "r": "Lamu  DEPO"}])
def test_too_few_queries_to_divide_are_refused(texts: dict[str, str]) -> None:
    cluster = CannedCluster(list(texts.values()), lambda text, body: {}, lambda text, body: {})
    with pytest.raises(InvalidInput, match=r"different queries, and two are needed"):
        Bench(judged_set(texts), cluster).tune()
    assert cluster.asked == []


def test_two_queries_are_searched_and_prove_nothing() -> None:
    found = lexical_is_better(2).tune()
    assert not found.better
    assert found.tuning.about["queries"] == {"tuned on": 1, "held out": 1}


@pytest.mark.parametrize("name", ["NDCG@10", "MRR@10"])
def test_the_measure_that_is_asked_for_decides(name: str) -> None:
    found = lexical_is_better(40).tune(measure_name=name)
    assert found.comparison.measure == found.tuning.about["measure"] == name
    assert f"points {name}" in found.verdict


def test_the_same_seed_gives_the_same_tuning_and_another_one_another_division() -> None:
    first, again, other = (lexical_is_better(40).tune(seed=seed) for seed in (0, 0, 5))
    assert (first.tuning, first.steps, first.comparison) == (again.tuning, again.steps, again.comparison)
    assert first.held_out["tuned"].per_query["NDCG@10"].keys() != other.held_out["tuned"].per_query["NDCG@10"].keys()


def failing(fails: Callable[[str, int], bool], count: int = 40) -> Bench:
    """A bench where both legs are as good as each other; `fails` takes a query's id and how often it was asked."""
    asked: dict[str, int] = {}

    def lexical(query: str, body: dict[str, Any]) -> Scores:
        asked[query] = asked.get(query, 0) + 1
        if fails(query, asked[query]):
            raise StoreRequestError("no", status_code=400, error_type="x")
        return leg(query, "l", good)

    return bench(count, lexical, lambda query: leg(query, "d", good))


def searched(count: int = 40) -> Sequence[str]:
    return list(split_queries(judged_set(queries(count)), share=HELD_OUT, seed=0)[1].queries)


def test_queries_that_failed_at_first_and_answer_later_are_no_gain() -> None:
    unlucky = searched()[:8]
    found = failing(lambda query, time: query in unlucky and time == 1).tune()
    assert found.failed.keys() == set(unlucky)
    assert kept(found) == ["as it is", "the share itself"]
    assert not found.better


def test_held_out_queries_that_failed_on_one_side_are_no_difference() -> None:
    held = split_queries(judged_set(queries(60)), share=HELD_OUT, seed=0)[0].queries
    unlucky = list(held)[: len(held) // 2]
    found = failing(lambda query, time: query in unlucky and time == 1, 60).tune()
    assert found.failed.keys() == set(unlucky)
    assert found.comparison.mean_difference == 0
    assert not found.better
    assert found.held_out["before"].per_query["NDCG@10"].keys() == set(held) - set(unlucky)


def test_where_most_queries_fail_nothing_is_tuned() -> None:
    with pytest.raises(StoreError, match=r"of \d+ queries failed \(store-error: no\)"):
        failing(lambda query, time: True).tune()


def test_a_sample_is_the_same_each_time_and_says_nothing_about_the_division() -> None:
    judged = judged_set(queries(200))
    some, more = sample_queries(judged, 50), sample_queries(judged, 80)
    assert (len(some.queries), len(more.queries)) == (50, 80)
    assert some.queries.keys() == sample_queries(judged, 50).queries.keys()
    assert some.queries.keys() < more.queries.keys()
    assert some.queries.keys() == some.qrels.keys()
    assert list(some.queries) == [query for query in judged.queries if query in some.queries]
    assert sample_queries(judged, 200) is judged
    held, searched_on = split_queries(some, share=HELD_OUT, seed=0)
    assert len(held.queries) < len(searched_on.queries) < 45


def test_the_load_is_what_was_asked_for() -> None:
    bench = lexical_is_better(6)
    bench.tune(load=Load(workers=1, rate=500))
    times = sorted(at for which, _, at in bench.cluster.asked if which == "lexical")
    assert times[-1] - times[0] >= (len(times) - 20) / 500  # each collecting begins anew
