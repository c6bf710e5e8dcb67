"""Collecting both legs of many queries: how hard, what failed, and going on where a run broke off."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from app.errors import DeadlineExceeded, StoreError, StoreUnavailable
from app.evaluation.collect import CollectedLegs, Load, RateLimiter, collect, require_majority
from app.evaluation.target import EvaluationTarget
from app.store.client import StoreRequestError
from app.store.queries import TIES
from app.tuning import SHIPPED, Boosts
from tests.unit.evaluation.legs import CannedCluster, Scores, canned_settings, query_legs

TEXTS = {"q1": "lamu", "q2": "depo", "q3": "rifa", "q4": "zuko", "q5": "mite", "q6": "pano"}
LEXICAL = {"a/0": 7.0, "b/0": 5.0, "a/1": 3.0}
DENSE = {"b/0": 1.9, "c/0": 1.5}


def answers(scores: Scores, **failing: Exception) -> Any:
    """A leg that answers each query with `scores`, but fails for some texts."""

    def answer(text: str, body: dict[str, Any]) -> Scores:
        if text in failing:
            raise failing[text]
        return scores

    return answer


def cluster(**failing: Exception) -> CannedCluster:
    return CannedCluster(list(TEXTS.values()), answers(LEXICAL, **failing), answers(DENSE))


def run(store: CannedCluster, queries: dict[str, str] | None = None, **options: Any) -> CollectedLegs:
    queries = TEXTS if queries is None else queries
    places = {text: place for place, text in enumerate(store.known)}
    vectors = {query: np.eye(len(places), dtype=np.float32)[places[text]] for query, text in queries.items()}
    same, tenant = options.pop("ignore_identical", False), options.pop("tenant", "default")
    encoder: Any = None
    where = EvaluationTarget(store, tenant, encoder, canned_settings(), 1, same)
    chosen = {"tuning": SHIPPED, "depth": 50, "load": Load(), "patience_s": 0.2, **options}
    return collect(queries, vectors, where, **chosen)


def refused(detail: str = "no") -> StoreRequestError:
    return StoreRequestError(detail, status_code=400, error_type="x")


def test_both_legs_of_every_query_in_the_order_of_the_queries() -> None:
    store = cluster()
    done: list[int] = []
    found = run(store, progress=done.append)
    wanted = query_legs(LEXICAL, DENSE)
    assert list(found.legs) == list(TEXTS)
    assert found.failed == {}
    assert sum(done) == len(TEXTS)
    for legs in found.legs.values():
        assert (legs.lexical, legs.dense, legs.bonus) == (wanted.lexical, wanted.dense, {})
        assert min(legs.lexical_ms, legs.dense_ms) >= 0
    assert found.legs["q3"].query.text == "rifa"
    assert sorted(store.texts("lexical")) == sorted(store.texts("dense")) == sorted(TEXTS.values())


def test_the_depth_is_asked_for_and_the_tenant_s_passages_alone() -> None:
    store = cluster()
    run(store, depth=10, tenant="acme")
    assert {body["size"] for body in store.bodies} == {10 + TIES}
    assert all("'acme'" in str(body) for body in store.bodies)


def test_identifiers_that_passages_hold_are_kept_with_the_legs(tmp_path: Path) -> None:
    queries = {"q1": "what is ERR-4711"}
    store = CannedCluster(list(queries.values()), answers(LEXICAL), answers(DENSE))
    store.exact = lambda text: ["a/1"]
    first = run(store, queries, kept_in=tmp_path / "legs.jsonl")
    assert first.legs["q1"].bonus == {"a/1": 1.0}
    assert run(store, queries, kept_in=tmp_path / "legs.jsonl") == first
    assert len(store.texts("lexical")) == 1


def test_a_query_that_fails_is_counted_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    kept = tmp_path / "legs.jsonl"
    found = run(cluster(depo=refused("too many clauses"), zuko=DeadlineExceeded("late")), kept_in=kept)
    assert found.failed == {"q2": "store-error: too many clauses", "q4": "deadline-exceeded: late"}
    assert list(found.legs) == ["q1", "q3", "q5", "q6"]
    again = cluster()
    assert list(run(again, kept_in=kept).legs) == list(TEXTS)
    assert sorted(again.texts("lexical")) == ["depo", "zuko"]


def test_a_dense_leg_that_fails_is_a_query_that_failed() -> None:
    store = CannedCluster(list(TEXTS.values()), answers(LEXICAL), answers(DENSE, rifa=refused()))
    assert run(store).failed == {"q3": "store-error: no"}


@pytest.mark.parametrize("leg", ["lexical", "dense"])
def test_what_was_answered_in_part_is_not_measured(leg: str, tmp_path: Path) -> None:
    store = cluster()
    store.failed_shards = lambda which, text: int((which, text) == (leg, "mite"))
    found = run(store, kept_in=tmp_path / "legs.jsonl")
    assert list(found.failed) == ["q5"]
    assert found.failed["q5"].startswith("partial-answer: partial: 1 of 3 shards failed")
    assert "q5" not in found.legs
    assert b"mite" not in (tmp_path / "legs.jsonl").read_bytes()


def test_a_query_that_the_service_would_refuse_is_counted_and_a_long_one_is_cut() -> None:
    queries = {"nul": "la\x00mu", "long": "deposition " * 500}
    store = CannedCluster(list(queries.values()), answers(LEXICAL), answers(DENSE))
    found = run(store, queries)
    assert list(found.legs) == ["long"]
    assert found.failed["nul"].startswith("invalid-input: ")
    assert len(found.legs["long"].query.text) <= 4096


def test_a_cluster_that_stays_away_ends_the_run_with_how_far_it_came(tmp_path: Path) -> None:
    kept = tmp_path / "legs.jsonl"
    away = StoreUnavailable("OpenSearch can't be reached.")
    failing = dict.fromkeys(list(TEXTS.values())[2:], away)
    with pytest.raises(StoreUnavailable, match=r"reached\. 2 of 6 queries were searched; repeat the command to resume"):
        run(cluster(**failing), load=Load(workers=1), kept_in=kept)
    with pytest.raises(StoreUnavailable, match=r"2 of 6 queries were searched; run the command again"):
        run(cluster(**failing), load=Load(workers=1))
    again = cluster()
    assert list(run(again, kept_in=kept).legs) == list(TEXTS)
    assert sorted(again.texts("lexical")) == sorted(list(TEXTS.values())[2:])


def test_queries_that_run_into_nothing_but_their_time_limit_end_the_run_too() -> None:
    hanging = dict.fromkeys(TEXTS.values(), DeadlineExceeded("late"))
    with pytest.raises(StoreUnavailable, match="late"):
        run(cluster(**hanging), patience_s=-1.0)


def test_a_cluster_that_comes_back_is_waited_for() -> None:
    count = itertools.count()

    def answer(text: str, body: dict[str, Any]) -> Scores:
        if 3 <= next(count) < 5:
            raise StoreUnavailable("away")
        return LEXICAL

    store = CannedCluster(list(TEXTS.values()), answer, answers(DENSE))
    found = run(store, patience_s=60)
    assert (list(found.legs), found.failed) == (list(TEXTS), {})


def test_a_run_that_is_stopped_asks_for_nothing_more() -> None:
    store = cluster()

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, load=Load(workers=2, rate=0.2), progress=stop)
    assert store.texts("lexical") == ["lamu"]  # the second would have had its turn in five seconds


def test_the_rate_bounds_how_many_have_begun_at_any_time() -> None:
    store = cluster()
    began = time.monotonic()
    run(store, load=Load(workers=4, rate=20))
    times = sorted(at for leg, _, at in store.asked if leg == "lexical")
    assert all(at - began >= number / 20 for number, at in enumerate(times))


def test_no_rate_no_pace() -> None:
    pace = RateLimiter(None)
    before = time.monotonic()
    for _ in range(1000):
        pace.wait()
    assert time.monotonic() - before < 1


def test_no_more_queries_at_once_than_workers() -> None:
    at_once: list[int] = []
    most: list[int] = []

    def answer(text: str, body: dict[str, Any]) -> Scores:
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return LEXICAL

    run(CannedCluster(list(TEXTS.values()), answer, answer), load=Load(workers=2))
    assert max(most) <= 2


def test_the_dense_side_of_legs_that_are_there_is_taken_over() -> None:
    first = run(cluster())
    store = CannedCluster(list(TEXTS.values()), answers({"z/0": 1.0}), answers({}))
    some = {query: first.legs[query] for query in ("q1", "q2")}
    found = run(store, dense_from=some)
    assert sorted(store.texts("dense")) == sorted(["rifa", "zuko", "mite", "pano"])
    assert found.legs["q1"].dense == first.legs["q1"].dense
    assert found.legs["q1"].dense_ms == first.legs["q1"].dense_ms
    assert found.legs["q1"].lexical[0].id == "z/0"


def test_a_query_s_own_document_can_be_left_out() -> None:
    found = run(cluster(), {"a": "lamu", "c": "depo"}, ignore_identical=True)
    assert [item.id for item in found.legs["a"].lexical] == ["b/0"]
    assert [item.id for item in found.legs["c"].dense] == ["b/0"]
    assert len(found.legs["c"].lexical) == 3


class Kept:
    """A finished run's file, and what a further run asks the cluster for."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "new" / "legs.jsonl"
        self.first = run(cluster(), kept_in=self.path)

    def asks(self, store: CannedCluster | None = None, queries: dict[str, str] | None = None, **options: Any) -> str:
        store = store or cluster()
        found = run(store, queries, kept_in=self.path, **options)
        assert list(found.legs) == list(TEXTS if queries is None else queries)
        return " ".join(sorted(store.texts("lexical")))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


EVERYTHING = " ".join(sorted(TEXTS.values()))


def test_a_finished_file_answers_alone_and_exactly(kept: Kept) -> None:
    store = cluster()
    assert run(store, kept_in=kept.path) == kept.first
    assert store.asked == []


def test_queries_that_came_are_asked_and_those_that_went_are_left_out(kept: Kept) -> None:
    fewer = {query: TEXTS[query] for query in ("q1", "q2")}
    assert kept.asks(queries=fewer) == ""
    renamed = {"q7": "pano", **fewer}
    assert kept.asks(queries=renamed) == "pano"


def test_a_query_with_another_text_is_asked_again(kept: Kept) -> None:
    swapped = {**TEXTS, "q1": "pano", "q6": "lamu"}
    assert kept.asks(queries=swapped) == "lamu pano"
    assert kept.asks(queries=swapped) == ""
    assert kept.asks() == ""


@pytest.mark.parametrize("left", [-1, 100, 1])
def test_a_last_line_that_was_left_half_written_costs_that_query_alone(kept: Kept, left: int) -> None:
    *whole, last = kept.path.read_bytes().splitlines(keepends=True)
    kept.path.write_bytes(b"".join(whole) + last[:left])
    assert len(kept.asks().split()) == (0 if left == -1 else 1)  # without its line end it is whole
    assert kept.asks() == ""  # nor is the line lost that came after the half one


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\x00 no JSON\n", b"[]\n", b'{"key": "other"}\n{"id": "q1"}\n'])
def test_a_file_of_something_else_is_started_anew(kept: Kept, content: bytes) -> None:
    kept.path.write_bytes(content)
    assert kept.asks() == EVERYTHING
    assert kept.asks() == ""


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 20},
        {"tenant": "other"},
        {"ignore_identical": True},
        {"tuning": SHIPPED.model_copy(update={"boosts": Boosts(phrase=0.9)})},
        {"tuning": SHIPPED.model_copy(update={"bm25": SHIPPED.bm25.model_copy(update={"k1": 0.9})})},
    ],
)
def test_legs_of_another_run_are_not_used(kept: Kept, options: dict[str, Any]) -> None:
    assert kept.asks(**options) == EVERYTHING
    assert kept.asks(**options) == ""


def test_what_only_fusion_needs_changes_nothing(kept: Kept) -> None:
    assert kept.asks(tuning=SHIPPED.model_copy(update={"alpha": 0.9, "version": 3, "normalization": "l2"})) == ""


def test_legs_of_another_state_of_the_index_are_not_used(kept: Kept) -> None:
    store = cluster()
    store.writes = 1
    assert kept.asks(store) == EVERYTHING
    other = cluster().within("braid-evaluation-other")
    assert isinstance(other, CannedCluster)
    assert kept.asks(other) == EVERYTHING


def test_a_long_query_is_recognised(tmp_path: Path) -> None:
    queries = {"long": "deposition " * 500}
    store = CannedCluster(list(queries.values()), answers(LEXICAL), answers(DENSE))
    first = run(store, queries, kept_in=tmp_path / "legs.jsonl")
    assert run(store, queries, kept_in=tmp_path / "legs.jsonl") == first
    assert len(store.texts("lexical")) == 1


def test_each_line_of_the_file_is_whole_when_it_is_there(kept: Kept) -> None:
    head, *rows = (orjson.loads(line) for line in kept.path.read_bytes().splitlines())
    assert set(head) == {"key"}
    assert {row["id"] for row in rows} == set(TEXTS)


def test_more_than_half_must_have_been_answered() -> None:
    legs = run(cluster()).legs
    require_majority(CollectedLegs(legs, {"x": "why"}), 7)
    require_majority(CollectedLegs(legs, dict.fromkeys("abcdef", "why")), 12)
    with pytest.raises(StoreError, match=r"7 of 13 queries failed \(why\)"):
        require_majority(replace(CollectedLegs(legs, {}), failed=dict.fromkeys("abcdefg", "why")), 13)
