"""Candidates for a distillation: what is asked of the cluster, and what becomes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreError
from app.evaluation.collect import Load
from app.evaluation.mining import MiningResult, make_queries, mine, query_key
from app.evaluation.target import EvaluationTarget
from app.store.client import StoreRequestError
from app.store.filters import Scope, clauses
from app.store.sampling import PassageSample, sample_passages
from app.tuning import SHIPPED
from tests.unit.evaluation.legs import CannedCluster, CannedEncoder, canned_settings

TEXTS = {"q1": "lamu", "q2": "depo", "q3": "rifa"}
LEXICAL = {"a/0": 7.0, "b/0": 5.0, "a/1": 3.0}
DENSE = {"b/0": 1.9, "c/0": 1.5}


class Store(CannedCluster):
    """Both legs, and the passages themselves; those in `gone` were deleted since."""

    def __init__(self, **failing: Exception) -> None:
        def lexical(text: str, body: dict[str, Any]) -> dict[str, float]:
            if text in failing:
                raise failing[text]
            return LEXICAL

        super().__init__(list(TEXTS.values()), lexical, lambda text, body: DENSE)
        self.gone: set[str] = set()
        self.read: list[tuple[float, dict[str, Any]]] = []
        self.broken_shards = 0

    def request(self, method: str, path: str, **options: Any) -> Any:
        body = options.get("body")
        query = body.get("query", {}) if isinstance(body, dict) else {}
        first = query.get("bool", {}).get("filter", [{}])[0]
        if "ids" not in first:
            return super().request(method, path, **options)
        self.read.append((time.monotonic(), body))
        hits = [
            {
                "_id": key,
                "_score": 0.0,
                "_source": {
                    "document_id": key[0], "title": "Title", "section_heading": "", "text": f"text of {key}",
                    "source_id": "s", "source_type": "text", "uri": "u", "position": 0, "topic_tags": [],
                    "content_hash": "h", "timestamp": None, "page": None,
                },
            }
            for key in first["ids"]["values"]
            if key not in self.gone
        ]  # fmt: skip
        shards = {"total": 3, "failed": self.broken_shards}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": {"hits": hits, "total": {"value": len(hits)}}}


def run(store: Store, folder: Path, **options: Any) -> MiningResult:
    encoder: Any = CannedEncoder(list(TEXTS.values()))
    where = EvaluationTarget(store, "mine", encoder, canned_settings(), 1)
    chosen = {"candidates": 10, "load": Load(), "kept_in": folder, **options}
    return mine(TEXTS, where, SHIPPED, **chosen)


def test_candidates_in_fused_order_with_the_text_that_a_reranker_reads(tmp_path: Path) -> None:
    found = run(Store(), tmp_path)
    assert [ranking.query for ranking in found.rankings] == list(TEXTS.values())
    first = found.rankings[0].candidates
    # b: 0.6 x 0.5 + 0.4 x 1; a/0: 0.6 x 1
    assert [item.id for item in first] == ["b/0", "a/0", "a/1", "c/0"]
    assert first[0].score == pytest.approx(0.7)
    assert first[0].text == "Title text of b/0"
    assert first[0].label is None


def test_only_as_many_as_asked_for(tmp_path: Path) -> None:
    assert [len(item.candidates) for item in run(Store(), tmp_path, candidates=2).rankings] == [2, 2, 2]


def test_each_passage_is_read_once_and_by_the_tenants_clauses(tmp_path: Path) -> None:
    store = Store()
    run(store, tmp_path)
    assert len(store.read) == 1, "three queries share their passages"
    filters = store.read[0][1]["query"]["bool"]["filter"]
    assert sorted(filters[0]["ids"]["values"]) == ["a/0", "a/1", "b/0", "c/0"]
    assert filters[1:] == [{"term": {"tenant": "mine"}}]
    assert all("'tenant': 'mine'" in str(body["query"]) for body in store.bodies)


def test_labels_are_those_of_the_query(tmp_path: Path) -> None:
    found = run(Store(), tmp_path, labels={"q2": {"a/0": 1, "c/0": 0}})
    labels = {item.id: item.label for item in found.rankings[1].candidates}
    assert labels == {"b/0": None, "a/0": 1.0, "a/1": None, "c/0": 0.0}
    assert all(item.label is None for item in found.rankings[0].candidates)


def test_passages_that_are_gone_are_left_out(tmp_path: Path) -> None:
    store = Store()
    store.gone = {"a/0", "a/1", "b/0"}
    assert [[item.id for item in ranking.candidates] for ranking in run(store, tmp_path).rankings] == [["c/0"]] * 3
    store.gone.add("c/0")
    found = run(store, tmp_path)
    assert (found.rankings, found.without) == ([], 3)


def test_a_query_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    found = run(Store(depo=StoreRequestError("no", status_code=400, error_type="x")), tmp_path)
    assert list(found.failed) == ["q2"]
    assert [ranking.query_id for ranking in found.rankings] == ["q1", "q3"]


def test_passages_of_which_shards_kept_silent_are_no_candidates(tmp_path: Path) -> None:
    store = Store()
    store.broken_shards = 1
    with pytest.raises(Exception, match="shards failed"):
        run(store, tmp_path)


def test_most_queries_failing_is_an_error(tmp_path: Path) -> None:
    refused = StoreRequestError("no", status_code=400, error_type="x")
    with pytest.raises(StoreError, match="2 of 3 queries failed"):
        run(Store(depo=refused, rifa=refused), tmp_path)


def test_a_run_that_broke_off_searches_only_the_rest(tmp_path: Path) -> None:
    first = Store()
    run(first, tmp_path)
    again = Store()
    assert run(again, tmp_path).rankings == run(Store(), tmp_path / "other").rankings
    assert again.asked == []


def test_no_more_requests_a_second_than_asked_for(tmp_path: Path) -> None:
    store = Store()
    began = time.monotonic()
    run(store, tmp_path, load=Load(workers=1, rate=10.0))
    assert time.monotonic() - began >= 0.2


def test_queries_of_passages() -> None:
    passages = [
        PassageSample(f"The title of {name}", "A heading", f"Short. The sentence about {name} is long enough. Ok.")
        for name in ("widgets", "gears", "springs")
    ]
    found = make_queries(passages, 20)
    assert set(found.values()) == {
        *(f"The title of {name}" for name in ("widgets", "gears", "springs")),
        *(f"The title of {name} A heading" for name in ("widgets", "gears", "springs")),
        *(f"The sentence about {name} is long enough." for name in ("widgets", "gears", "springs")),
    }
    assert all(query_key(text) == key for key, text in found.items())
    assert found == make_queries(passages, 20)
    assert found != make_queries(passages, 20, seed=1) or list(found) != list(make_queries(passages, 20, seed=1))
    assert len(make_queries(passages, 4)) == 4


def test_passages_without_words_make_no_queries() -> None:
    assert make_queries([PassageSample("", "", "one"), PassageSample("Two words", "", "")], 10) == {}


def test_a_long_sentence_is_cut() -> None:
    (text,) = make_queries([PassageSample("", "", "word " * 100)], 10).values()
    assert len(text.split()) == 24


def test_a_sample_is_of_what_the_scope_may_see() -> None:
    asked: list[dict[str, Any]] = []

    class Sampling(Store):
        def request(self, method: str, path: str, **options: Any) -> Any:
            asked.append(options["body"])
            return {"hits": {"hits": [{"_source": {"title": "T", "text": "x"}}]}}

    assert sample_passages(Sampling(), Scope("mine", frozenset({"a"})), 5000, seed=3) == [PassageSample("T", "", "x")]
    assert asked[0]["size"] == 2000
    score = asked[0]["query"]["function_score"]
    assert score["query"]["bool"]["filter"] == clauses(Scope("mine", frozenset({"a"})))
    assert score["random_score"]["seed"] == 3
