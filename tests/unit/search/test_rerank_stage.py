"""The rerank stage in the service: when it runs, what it reads, and what a search says when it could not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.deadline import Deadline
from app.errors import BraidError, DeadlineExceeded, RerankerError, RerankerUnavailable
from app.search.reranking import Scores, Subject
from app.search.stages import RerankOutcome
from app.tuning import RerankTuning
from tests.unit.search.test_service import FIXED, READY, Case, ids, leg, response, said, slowly

SCORES = {"a": 0.1, "b": 0.2, "c": 0.9}


class Told:
    """A reranker that gives each passage the score it is told."""

    name, weight, depth, calibrated, reads_tokens = "told", 0.8, 20, True, True

    def __init__(self) -> None:
        self.scores: dict[str, float] = SCORES
        self.error: BraidError | None = None
        self.most = 1000
        """Passages after which its time is over."""
        self.block = 50
        self.subjects: list[Subject] = []
        self.budgets: list[int] = []
        self.begun: list[tuple[str, object | None]] = []
        self.scored_tokens = {name.encode() for name in SCORES}

    def encode_query(self, text: str) -> tuple[npt.NDArray[np.float32], object]:
        return np.ones(4, np.float32), f"encoded {text}"

    def begin(self, query: str, encoded: object | None) -> Told:
        self.begun.append((query, encoded))
        return self

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        return [len(subjects[start : start + self.block]) for start in range(0, len(subjects), self.block)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        if self.error is not None:
            raise self.error
        if len(self.subjects) >= self.most:
            raise DeadlineExceeded("spent")
        self.budgets.append(deadline.budget_ms)
        self.subjects += subjects
        return np.array([self.scores[self.name_of(item)] for item in subjects])

    def reads(self, tokens: bytes | None) -> bool:
        return tokens in self.scored_tokens

    def name_of(self, subject: Subject) -> str:
        return subject.tokens.decode() if subject.tokens in self.scored_tokens else subject.hit.id

    def upper_bound(self, fused: float) -> float:
        return 1.0


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def case(told: Told) -> Any:
    with ThreadPoolExecutor(4) as executor:
        found = Case(executor)
        found.reranker = told
        yield found


def test_a_hybrid_search_is_reranked_unless_it_says_no(case: Case, told: Told) -> None:
    found = case.search()
    assert (ids(found), said(found)) == (["c", "b", "a"], [])
    assert [hit.rerank for hit in found.hits] == [0.9, 0.2, 0.1]
    assert found.rerank == RerankOutcome("told", 0.8, 3, 3, "complete")
    assert found.timings["rerank_ms"] >= 0
    assert told.begun == [("the valve", "encoded the valve")]
    assert ids(case.search(rerank=False)) == ["a", "b", "c"]
    assert len(told.begun) == 1


def read_ids(body: dict[str, Any]) -> list[str]:
    assert body["query"]["bool"]["filter"][1:]  # the caller's scope
    return sorted(body["query"]["bool"]["filter"][0]["ids"]["values"])


def test_of_the_candidates_only_token_vectors_are_read_and_texts_for_the_page(case: Case, told: Told) -> None:
    assert ids(case.search(size=2)) == ["c", "b"]
    (tokens,), (texts,) = case.cluster.sent["tokens"], case.cluster.sent["fetch"]
    assert (tokens["_source"], tokens["docvalue_fields"]) == (False, ["passage_id", "token_vectors"])
    assert (read_ids(tokens), read_ids(texts)) == (["a", "b", "c"], ["b", "c"])
    assert [item.passage for item in told.subjects] == [None] * 3


def test_without_usable_token_vectors_the_text_is_read_and_makes_the_page(case: Case, told: Told) -> None:
    told.scored_tokens = {b"b"}
    assert ids(case.search(size=2)) == ["c", "b"]
    assert [read_ids(body) for body in case.cluster.sent["fetch"]] == [["a", "c"], ["b"]]


def test_token_vectors_are_read_only_for_a_reranker_that_uses_them(case: Case, told: Told) -> None:
    told.reads_tokens = False
    case.search()
    assert "tokens" not in case.cluster.sent


@pytest.mark.parametrize(
    ("fields", "reranked"), [({"mode": "lexical"}, False), ({"mode": "lexical", "rerank": True}, True)]
)
def test_a_search_by_one_leg_is_reranked_when_it_asks(case: Case, fields: dict[str, Any], reranked: bool) -> None:
    assert (case.search(**fields).rerank is not None) == reranked


def test_switched_off_by_default_it_can_still_be_asked_for(case: Case) -> None:
    case.settings = {"rerank_default": False}
    assert case.search().rerank is None
    assert case.search(rerank=True).rerank is not None


def test_only_the_first_are_reranked(case: Case, told: Told) -> None:
    told.scores = {"a": 0.1, "b": 0.9, "c": 1.0}
    found = case.search(rerank={"depth": 2})
    assert ids(found) == ["b", "a", "c"]
    assert found.rerank == RerankOutcome("told", 0.8, 2, 2, "complete")
    assert [told.name_of(item) for item in told.subjects] == ["a", "b"]


def test_weight_and_depth_are_the_requests_else_set_else_tuned_else_the_rerankers(case: Case) -> None:
    def used(**fields: Any) -> tuple[float, int]:
        outcome = case.search(**fields).rerank
        assert outcome is not None
        return outcome.weight, outcome.of

    assert used() == (0.8, 3)
    tuning = FIXED.model_copy(update={"rerank": RerankTuning(reranker="told", weight=0.3, depth=2)})
    case.state = replace(READY, tuning=tuning)
    assert used() == (0.3, 2)
    other = RerankTuning(reranker="another", weight=0.3, depth=2)
    case.state = replace(READY, tuning=FIXED.model_copy(update={"rerank": other}))
    assert used() == (0.8, 3)
    case.settings = {"rerank_weight": 0.4, "rerank_depth": 1}
    assert used() == (0.4, 1)
    assert used(rerank={"weight": 0.9, "depth": 2}) == (0.9, 2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RerankerUnavailable("away"), "reranker-unavailable"), (RerankerError("broken"), "reranker-error")],
)
def test_without_its_reranker_a_search_answers_in_fused_order(
    case: Case, told: Told, error: BraidError, kind: str
) -> None:
    told.error = error
    found = case.search()
    assert (ids(found), said(found)) == (["a", "b", "c"], [("rerank", kind)])
    told.error = None
    assert said(case.search()) == []


def test_when_time_runs_out_the_answer_says_how_far_it_got(case: Case, told: Told) -> None:
    told.block, told.most = 1, 1
    found = case.search()
    (degraded,) = found.degraded
    assert degraded.reason.startswith("deadline: 1 of 3 were reranked")
    assert found.rerank is not None
    assert (found.rerank.scored, found.rerank.stopped) == (1, "deadline")


def test_it_never_takes_all_of_the_time_that_is_left(case: Case, told: Told) -> None:
    case.settings = {"rerank_budget_ms": 60_000}
    case.search(timeout_ms=5000)
    assert told.budgets[0] <= 4000


def test_no_reranker_is_only_worth_a_word_when_one_was_asked_for(case: Case) -> None:
    case.reranker = None
    assert said(case.search()) == []
    assert said(case.search(rerank=True)) == [("rerank", "not-configured")]


def test_a_decisive_lead_saves_the_reranker(case: Case, told: Told) -> None:
    case.settings = {"rerank_skip_margin": 0.1}
    found = case.search()
    assert (ids(found), said(found)) == (["a", "b", "c"], [])
    assert found.rerank == RerankOutcome("told", 0.8, 0, 3, "decisive")
    assert not told.subjects
    assert ids(case.search(rerank=True)) == ["c", "b", "a"]  # who asks for it gets it


def test_a_threshold_means_nothing_without_probabilities(case: Case, told: Told) -> None:
    told.calibrated = False
    assert said(case.search(rerank={"threshold": 0.5})) == [("rerank", "no-threshold")]


def test_what_was_deleted_meanwhile_is_read_anew(case: Case) -> None:
    pages = iter([response("a", "b"), response("a", "b", "c")])
    case.more["fetch"] = lambda: next(pages)
    found = case.search()
    assert (ids(found), said(found)) == (["c", "b", "a"], [])


def test_pages_follow_from_one_order(case: Case, told: Told) -> None:
    names = [f"p{n:02}" for n in range(10)]
    told.scores = {name: n / 10 for n, name in enumerate(names)}
    told.block, told.weight = 3, 1.0
    case.lexical, case.dense = lambda: leg(*names), lambda: leg(*names)
    whole = ids(case.search(size=10))
    assert whole == names[::-1]
    assert [*ids(case.search(size=5)), *ids(case.search(size=5, **{"from": 5}))] == whole


def test_it_goes_with_the_native_way_and_shaping(case: Case) -> None:
    case.settings = {"hybrid_way": "native"}
    assert ids(case.search()) == ["c", "a", "b"]
    case.settings = {}
    assert ids(case.search(max_per_document=1, fold_duplicates=False)) == ["c", "b", "a"]


def test_a_budget_spent_before_it_leaves_the_search_its_answer(case: Case, told: Told) -> None:
    told.error = DeadlineExceeded("spent")
    found = case.search()
    assert (ids(found), said(found)) == (["a", "b", "c"], [("rerank", "deadline")])


def test_reranking_that_is_switched_off_is_stated_where_it_was_asked_for(case: Case, told: Told) -> None:
    found = case.switched(rerank=False).search()
    assert (ids(found), said(found), found.rerank) == (["a", "b", "c"], [], None)
    found = case.search(rerank=True)
    assert (ids(found), said(found), found.rerank) == (["a", "b", "c"], [("rerank", "switched-off")], None)
    assert told.begun == []


def test_a_search_that_ends_early_is_not_reranked(case: Case, told: Told) -> None:
    case.lexical = lambda: leg("a", codes={"err-4711": ("a",)})
    found = case.search(query="ERR-4711")
    assert (found.plan.way, found.rerank, said(found)) == ("lexical", None, [])
    assert told.begun == []
    assert case.search(query="ERR-4711", rerank=True).rerank is not None


def test_it_is_skipped_where_it_has_lately_taken_more_than_is_left(case: Case, told: Told) -> None:
    pauses = [0.4] * 5

    def fetch() -> dict[str, Any]:
        return slowly(lambda: response("a", "b", "c"), pauses.pop() if pauses else 0.0)()

    case.more["fetch"] = fetch
    case.kept = case.service()
    for _ in range(5):
        assert said(case.search()) == []
    assert not pauses
    begun = len(told.begun)
    found = case.search(timeout_ms=300)
    assert (ids(found), said(found)) == (["a", "b", "c"], [("rerank", "deadline")])
    assert len(told.begun) == begun
    assert "lately needed" in found.degraded[0].reason
