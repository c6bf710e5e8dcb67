"""What a search says when a part of it fails. No cluster fails one leg on order, so its answers are canned."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from app.config import load_settings
from app.deadline import Deadline
from app.errors import (
    DeadlineExceeded,
    EncoderError,
    FeatureDisabled,
    InvalidInput,
    StoreError,
    StoreNotReady,
    StoreUnavailable,
)
from app.features import ALL_ON, Features
from app.querytext import read_query
from app.search.fusion import rank_alone
from app.search.fusion_stage import exact_matches
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.reranking import Reranker
from app.search.service import SearchResult, SearchService
from app.store import queries
from app.store.client import TooManyClauses
from app.store.filters import Scope
from app.store.responses import Leg as LegFound
from app.store.responses import Outcome, Total
from app.tuning import SHIPPED, Tuning
from tests.unit.searches import ACCENTS, answer_searches, checked_word, searched_code

Leg = Callable[[], dict[str, Any]]
READY = StoreState((), shards=1, native_rrf_across_shards=False)
FIXED = SHIPPED.model_copy(update={"learned": False})
"""A tuning by whose fixed weight the order can be told by hand."""


def envelope(hits: list[dict[str, Any]], total: int | None, failed: int, timed_out: bool) -> dict[str, Any]:
    return {
        "took": 3,
        "timed_out": timed_out,
        "_shards": {"total": 3, "failed": failed},
        "hits": {"hits": hits, "total": {"value": len(hits) if total is None else total}},
    }


def response(*ids: str, total: int | None = None, failed: int = 0, timed_out: bool = False) -> dict[str, Any]:
    """An answer with passages."""
    hits = [
        {"_id": name, "_score": 1.0 - n / 10, "_source": {"document_id": name, "text": "t"}}
        for n, name in enumerate(ids)
    ]
    return envelope(hits, total, failed, timed_out)


def leg(
    *ids: str,
    total: int | None = None,
    failed: int = 0,
    timed_out: bool = False,
    codes: Mapping[str, tuple[str, ...]] | None = None,
    words: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A leg's answer: ids and scores; the ids of passages with a code, and counts of words, for the other searches."""
    hits = [{"_score": 2.0 - n / 10, "fields": ids_of(name)} for n, name in enumerate(ids)]
    return {**envelope(hits, total, failed, timed_out), "codes": codes or {}, "words": words or {}}


def token_vectors(*ids: str) -> dict[str, Any]:
    """An answer with token vectors: the passage's own name."""
    packed = {name: b64encode(name.encode()).decode() for name in ids}
    hits = [{"fields": {"passage_id": [name], "token_vectors": [packed[name]]}} for name in ids]
    return envelope(hits, None, False, False)


def ids_of(name: str) -> dict[str, list[str]]:
    return {"passage_id": [name], "document_id": [name]}


def down() -> dict[str, Any]:
    raise StoreUnavailable("OpenSearch can't be reached")


class CannedCluster:
    """Answers each kind of request as it is told; `sent` holds the bodies, by kind, `params` those of the last."""

    read_alias = "braid-passages"

    def __init__(self, answers: dict[str, Leg]) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self.sent: dict[str, list[dict[str, Any]]] = {}
        self.params: Any = None
        self.words: list[str] = []
        """Words that were looked up."""

    def request(self, method: str, path: str, *, params: Any, body: Any, timeout_s: float | None) -> Any:
        assert (method, path) in {("POST", "/braid-passages/_search"), ("POST", "/braid-passages/_msearch")}
        assert timeout_s is not None
        ranked: dict[str, Any] = {}

        def answer(body: dict[str, Any]) -> dict[str, Any]:
            nonlocal ranked
            if (word := checked_word(body)) is not None:
                self.words.append(word)
                there = ranked["words"].get(word, int(not word.startswith(ACCENTS)))
                return envelope([], there, 0, False)
            if (code := searched_code(body)) is not None:
                found = ranked["codes"].get(code, ())
                return envelope([{"_score": 0.1, "fields": ids_of(name)} for name in found], None, 0, False)
            ranked = self._answer(params, body)
            return ranked

        return answer_searches(path, body, answer)

    def _answer(self, params: Any, body: dict[str, Any]) -> dict[str, Any]:
        kind = "tokens" if "token_vectors" in body.get("docvalue_fields", ()) else self._kind(body["query"])
        with self._lock:
            self.params = params
            self.sent.setdefault(kind, []).append(body)
        if kind in ("fetch", "tokens") and kind not in self._answers:
            names = body["query"]["bool"]["filter"][0]["ids"]["values"]
            return response(*names) if kind == "fetch" else token_vectors(*names)
        return self._answers[kind]()

    @staticmethod
    def _kind(query: dict[str, Any]) -> str:
        (name,) = query
        if name == "knn":
            return "dense"
        if name == "hybrid":
            return name
        part = query["bool"]
        if "minimum_should_match" in part:
            return "count"
        if "must" not in part:
            return "fetch"
        return "corrected" if "fuzziness" in str(part["must"]) else "lexical"


class CannedEncoder:
    name = "all-MiniLM-L6-v2"

    def __init__(self, fails: bool = False) -> None:
        self._fails = fails

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        if self._fails:
            raise EncoderError("out of memory")
        return np.ones(4, dtype=np.float32)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


class Case:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self.lexical: Leg = lambda: leg("a", "b", total=9)
        self.dense: Leg = lambda: leg("b", "c")
        self.hybrid: Leg = lambda: response("a", "b", "c")
        self.more: dict[str, Leg] = {}
        self.encoder = CannedEncoder()
        self.state = replace(READY, tuning=FIXED)
        self.settings: dict[str, Any] = {}
        self.reranker: Reranker | None = None
        self.max_age_s = 0.5
        self.unknown = False
        self.features = ALL_ON
        self.kept: SearchService | None = None

    def service(self) -> SearchService:
        answers = {"lexical": self.lexical, "dense": self.dense, "hybrid": self.hybrid, **self.more}
        self.cluster = CannedCluster(answers)
        gate = ReadinessGate(self.check, self._executor, max_age_s=self.max_age_s)
        settings = load_settings(**self.settings)
        return SearchService(settings, self.cluster, self.encoder, gate, self._executor, self.reranker)

    def check(self) -> StoreState:
        if self.unknown:
            raise StoreUnavailable("OpenSearch can't be reached")
        return self.state

    def search(self, deadline: Deadline | None = None, **fields: Any) -> SearchResult:
        request = SearchRequest.model_validate({"query": "the valve", **fields})
        return (self.kept or self.service()).search(request, Scope("default"), deadline, self.features)

    def switched(self, **flags: bool) -> Case:
        self.features = Features(**flags)
        return self

    @property
    def kinds(self) -> list[str]:
        return sorted(self.cluster.sent)


@pytest.fixture
def case(executor: ThreadPoolExecutor) -> Case:
    return Case(executor)


@pytest.fixture
def native(case: Case) -> Case:
    """The same, with BRAID_HYBRID_WAY=native."""
    case.settings = {"hybrid_way": "native"}
    return case


def said(found: SearchResult) -> list[tuple[str, str]]:
    return [(item.stage, item.reason.split(":")[0]) for item in found.degraded]


def ids(found: SearchResult) -> list[str]:
    return [hit.id for hit in found.hits]


def test_a_model_without_a_calibration_is_named_where_the_vector_leg_runs(case: Case) -> None:
    case.encoder.name = "some-other-model"
    (item,) = case.search().degraded
    assert (item.stage, item.reason) == (
        "vector", "uncalibrated: the embedding model 'some-other-model' has no calibration",
    )  # fmt: skip
    assert said(case.search(mode="dense")) == [("vector", "uncalibrated")]
    assert said(case.search(mode="lexical")) == []


def test_all_well(case: Case) -> None:
    found = case.search()
    assert (ids(found), said(found), found.plan.way) == (["a", "b", "c"], [], "legs")
    assert case.kinds == ["dense", "fetch", "lexical"]
    wanted = {"query_encode_ms", "lexical_ms", "vector_ms", "hybrid_ms", "fetch_ms", "retrieve_ms", "total_ms"}
    assert wanted | {"opensearch_took_ms"} == found.timings.keys()
    assert found.timings["opensearch_took_ms"] == 6.0  # the legs run side by side, then the passages are fetched
    first = found.hits[0]
    assert (first.lexical, first.dense) == (2.0, None)
    assert first.score == first.fused == pytest.approx(0.6)


def test_the_native_way_is_one_request(native: Case) -> None:
    found = native.search()
    assert (ids(found), said(found), found.plan.way) == (["a", "b", "c"], [], "native")
    assert native.kinds == ["hybrid"]
    assert native.cluster.params == {"search_pipeline": "braid-hybrid-linear"}
    assert {"query_encode_ms", "hybrid_ms", "opensearch_took_ms", "total_ms"} <= found.timings.keys()
    assert [hit.score for hit in found.hits] == [hit.fused for hit in found.hits] == [1.0, 0.9, 0.8]


def test_a_native_weight_of_the_request_goes_inline(native: Case) -> None:
    found = native.search(fusion={"alpha": 0.25})
    (body,) = native.cluster.sent["hybrid"]
    assert (body["search_pipeline"], native.cluster.params) == (queries.linear_pipeline(0.25), {})
    assert found.weight is not None
    assert (found.weight.alpha, found.weight.source) == (0.25, "request")
    native.search(fusion={"method": "rrf"})
    assert native.cluster.params == {"search_pipeline": "braid-hybrid-rrf"}


def test_the_native_weight_is_that_of_the_pipeline(native: Case) -> None:
    tuning = Tuning(version=3, alpha=0.7, native_alpha=0.2, learned=False)
    native.state = replace(READY, tuning=tuning)
    found = native.search()
    assert found.weight is not None
    assert (found.plan.way, found.weight.alpha, found.weight.source) == ("native", 0.2, "tuned")
    native.settings = {"hybrid_way": "native", "alpha": 0.9}
    weight = native.search().weight
    assert weight is not None
    assert (weight.alpha, weight.source) == (0.9, "setting")


def test_a_native_page_past_the_hits_is_empty(native: Case) -> None:
    assert ids(native.search(size=2, **{"from": 1})) == ["b", "c"]
    assert ids(native.search(size=5, **{"from": 50})) == []
    assert native.cluster.sent["hybrid"][0]["size"] == 55


@pytest.mark.parametrize(
    ("lexical", "dense", "wanted"),
    [
        ({}, {}, Total(3)),  # all that match are candidates
        ({"total": 9}, {}, Total(9, "gte")),  # c may match, too
        ({"total": 2, "failed": 1}, {}, Total(3, "gte")),
        ({}, {"timed_out": True}, Total(3, "gte")),
    ],
)
def test_two_legs_count_what_both_match_once(
    case: Case, lexical: dict[str, Any], dense: dict[str, Any], wanted: Total
) -> None:
    case.lexical, case.dense = lambda: leg("a", "b", **lexical), lambda: leg("b", "c", **dense)
    found = case.search()
    assert (set(ids(found)), found.total) == ({"a", "b", "c"}, wanted)
    assert case.kinds == ["dense", "fetch", "lexical"]


def test_an_exact_total_is_counted_if_it_is_not_known(case: Case) -> None:
    case.more["count"] = lambda: envelope([], 10, 0, False)
    found = case.search(exact_total=True)
    assert (found.total, said(found)) == (Total(10), [])
    (body,) = case.cluster.sent["count"]
    lexical, dense = body["query"]["bool"]["should"]
    assert lexical == queries.lexical_match(read_query("the valve"), dense["bool"]["filter"][1:])
    assert dense["bool"]["filter"][0] == {"ids": {"values": ["b", "c"]}}
    assert (body["size"], body["track_total_hits"]) == (0, True)
    case.more["count"] = down
    found = case.search(exact_total=True)
    assert (found.total, said(found)) == (Total(9, "gte"), [("lexical", "store-unavailable")])
    case.lexical = lambda: leg("a", "b")
    assert case.search(exact_total=True).total == Total(3)
    assert "count" not in case.cluster.sent


def test_an_encoder_that_fails_leaves_the_lexical_leg(case: Case) -> None:
    case.encoder = CannedEncoder(fails=True)
    for case.settings in ({}, {"hybrid_way": "native"}):
        found = case.search()
        assert (ids(found), said(found)) == (["a", "b"], [("vector", "encoder-failed")])
        assert (found.plan.way, found.total, found.weight) == ("lexical", Total(9), None)
    with pytest.raises(EncoderError):
        case.search(mode="dense")


@pytest.mark.parametrize(
    ("failing", "left", "stage", "total"),
    [("lexical", ["b", "c"], "lexical", 2), ("dense", ["a", "b"], "vector", 9)],
)
def test_a_leg_that_fails_leaves_the_other_and_is_named(
    case: Case, failing: str, left: list[str], stage: str, total: int
) -> None:
    setattr(case, failing, down)
    for fields in ({}, {"explain": True}, {"fusion": {"method": "rrf"}}):
        found = case.search(**fields)
        assert (ids(found), said(found)) == (left, [(stage, "store-unavailable")])
        assert found.total == Total(total, "gte")


def test_both_legs_down_is_an_error(case: Case) -> None:
    case.lexical = case.dense = case.hybrid = down
    with pytest.raises(StoreUnavailable):
        case.search(explain=True)
    with pytest.raises(StoreUnavailable):
        case.search()
    case.settings = {"hybrid_way": "native"}
    with pytest.raises(StoreUnavailable):
        case.search()


@pytest.mark.parametrize("mode", ["lexical", "dense"])
def test_one_leg_alone_that_fails_is_an_error(case: Case, mode: str) -> None:
    setattr(case, mode, down)
    with pytest.raises(StoreUnavailable):
        case.search(mode=mode)


def test_one_leg_alone_has_its_own_scores(case: Case) -> None:
    found = case.search(mode="lexical")
    assert [(hit.id, hit.score, hit.lexical, hit.dense, hit.fused) for hit in found.hits] == [
        ("a", 2.0, 2.0, None, None),
        ("b", 1.9, 1.9, None, None),
    ]
    assert (found.plan.way, found.total, case.kinds) == ("lexical", Total(9), ["fetch", "lexical"])
    found = case.search(mode="dense")
    assert [(hit.id, hit.score, hit.lexical, hit.dense) for hit in found.hits] == [
        ("b", 2.0, None, 2.0),
        ("c", 1.9, None, 1.9),
    ]
    assert case.kinds == ["dense", "fetch"]


def test_passages_that_cannot_be_fetched_are_an_error(case: Case) -> None:
    case.more["fetch"] = down
    with pytest.raises(StoreUnavailable):
        case.search()


def test_a_passage_that_was_deleted_meanwhile_is_left_out(case: Case) -> None:
    case.more["fetch"] = lambda: response("c", "a")
    assert ids(case.search()) == ["a", "c"]


def test_nothing_found_fetches_nothing(case: Case) -> None:
    case.lexical = leg
    case.dense = leg
    found = case.search(highlight=True, mmr=True)
    assert (ids(found), found.total, case.kinds) == ([], Total(0), ["dense", "lexical"])


def test_partial_and_late_answers_are_named(native: Case) -> None:
    native.hybrid = lambda: response("a", failed=1, timed_out=True)
    assert said(native.search()) == [("hybrid", "partial"), ("hybrid", "timeout")]
    native.settings = {}
    native.dense = lambda: leg("b", failed=1)
    native.lexical = lambda: leg("a", timed_out=True)
    native.more["fetch"] = lambda: response("a", failed=2)
    found = native.search()
    assert sorted(said(found)) == [("fetch", "partial"), ("lexical", "timeout"), ("vector", "partial")]
    assert "partial: 1 of 3 shards failed" in [item.reason for item in found.degraded]


def test_delimiter_scores_of_a_hybrid_that_was_not_fused_are_an_error(native: Case) -> None:
    def unfused() -> dict[str, Any]:
        found = response("a", "b")
        found["hits"]["hits"][0]["_score"] = -9549511920.4881596645
        return found

    native.hybrid = unfused
    with pytest.raises(StoreError, match="braid templates apply"):
        native.search()


def test_passages_without_a_passage_id_are_an_error(case: Case) -> None:
    def strange() -> dict[str, Any]:
        found = leg("a")
        del found["hits"]["hits"][0]["fields"]
        return found

    case.lexical = strange
    with pytest.raises(StoreError, match="ingest pipeline"):
        case.search(mode="lexical")


def test_over_several_shards_only_rrf_of_old_versions_takes_two_legs(native: Case) -> None:
    native.state = replace(READY, shards=3, tuning=FIXED)
    assert native.search().plan.way == "native"
    assert native.search(fusion={"method": "rrf"}).plan.way == "legs"
    native.state = replace(native.state, native_rrf_across_shards=True)
    assert native.search(fusion={"method": "rrf"}).plan.way == "native"


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "what is ERR-4711"},
        {"query": 'the "upload queue"'},
        {"fusion": {"normalization": "z_score"}},
        {"fusion": {"learned": True}},
    ],
)
def test_what_only_the_service_can_do_is_not_sent_native(native: Case, fields: dict[str, Any]) -> None:
    native.lexical = lambda: leg("a", codes={})
    assert native.search(**fields).plan.way == "legs"


@pytest.mark.parametrize("fields", [{"max_per_document": 1}, {"fold_duplicates": True}, {"mmr": True}])
def test_a_native_page_that_is_chosen_among_all_candidates_gets_them_all(native: Case, fields: dict[str, Any]) -> None:
    assert native.search(size=2, **fields).plan.way == "native"
    assert native.cluster.sent["hybrid"][0]["size"] == 100


def test_the_native_weight_is_fixed_unless_the_request_wants_it_learned(native: Case) -> None:
    native.state = READY
    weight = native.search().weight
    assert weight is not None
    assert (weight.alpha, weight.source) == (0.4, "default")
    weight = native.search(fusion={"learned": True}).weight
    assert weight is not None
    assert weight.source in ("learned", "default")
    assert sorted(native.cluster.sent) == ["dense", "fetch", "lexical"]


def test_an_explained_native_search_shows_the_scores_of_the_legs(native: Case) -> None:
    def hybrid() -> dict[str, Any]:
        found = response("both", "lexical", "dense", "deep")
        parts = {"both": [2.0, 1.5], "lexical": [1.0], "dense": [1.2], "deep": [0.0, 1.1]}
        for hit in found["hits"]["hits"]:
            own = parts[hit["_id"]]
            details = [{"value": float(own[n] > 0), "details": [{"value": own[n] or 0.5}]} for n in range(len(own))]
            hit["_explanation"] = {"value": hit["_score"], "details": details}
            if hit["_id"] != "dense":
                hit["matched_queries"] = ["lexical"]
        return found

    native.hybrid = hybrid
    found = native.search(explain=True)
    assert [(hit.id, hit.lexical, hit.dense) for hit in found.hits] == [
        ("both", 2.0, 1.5),
        ("lexical", 1.0, None),
        ("dense", None, 1.2),
        ("deep", None, 1.1),
    ]
    (body,) = native.cluster.sent["hybrid"]
    assert body["explain"]
    assert body["search_pipeline"] == queries.with_explanation(queries.linear_pipeline(0.4))
    native.search(explain=True, fusion={"method": "rrf"})
    assert native.cluster.sent["hybrid"][0]["search_pipeline"] == queries.with_explanation(queries.rrf_pipeline(60))


def test_another_native_normalisation_goes_inline(native: Case) -> None:
    native.state = replace(READY, tuning=FIXED.model_copy(update={"normalization": "z_score", "native_alpha": 0.3}))
    found = native.search(fusion={"normalization": "l2"})
    (body,) = native.cluster.sent["hybrid"]
    assert body["search_pipeline"] == queries.linear_pipeline(0.4, "l2")
    assert found.normalization == "l2"
    assert native.search().normalization == "min_max"
    assert native.cluster.params == {"search_pipeline": "braid-hybrid-linear"}


@pytest.mark.parametrize(
    ("fusion", "settings", "tuning", "wanted"),
    [
        ({}, {}, FIXED, (0.4, "default")),
        ({}, {}, FIXED.model_copy(update={"version": 2, "alpha": 0.3}), (0.3, "tuned")),
        ({}, {"alpha": 0.8}, SHIPPED, (0.8, "setting")),
        ({"alpha": 0.1}, {"alpha": 0.8}, SHIPPED, (0.1, "request")),
        ({"learned": False}, {}, SHIPPED, (0.4, "default")),
        ({}, {"learned_fusion": False}, SHIPPED, (0.4, "default")),
        ({"normalization": "l2"}, {}, SHIPPED, (0.4, "default")),
    ],
)
def test_where_the_weight_comes_from(
    case: Case, fusion: dict[str, Any], settings: dict[str, Any], tuning: Tuning, wanted: tuple[float, str]
) -> None:
    case.state, case.settings = replace(READY, tuning=tuning), settings
    weight = case.search(fusion=fusion).weight
    assert weight is not None
    assert (weight.alpha, weight.source, weight.features) == (*wanted, None)


@pytest.mark.parametrize(
    ("fusion", "settings"),
    [({}, {}), ({"learned": True}, {"learned_fusion": False}), ({"learned": True}, {"alpha": 0.8})],
)
def test_the_learned_weight_is_asked_unless_a_fixed_one_is(
    case: Case, fusion: dict[str, Any], settings: dict[str, Any]
) -> None:
    case.state, case.settings = READY, settings
    weight = case.search(fusion=fusion).weight
    assert weight is not None
    assert weight.features is not None  # whether it was trusted or not


def test_rank_fusion_has_no_weight(case: Case) -> None:
    found = case.search(fusion={"method": "rrf"})
    assert (ids(found), found.weight) == (["b", "a", "c"], None)
    case.settings = {"rrf_rank_constant": 1}
    assert case.search(fusion={"method": "rrf"}).hits[0].score == pytest.approx(1 / 3 + 1 / 2)


def test_exact_matches_stand_first_and_are_told(case: Case) -> None:
    case.lexical = lambda: leg("a", "b", codes={"err-4711": ("b",)})
    found = case.search(query="what is ERR-4711")
    assert (ids(found), found.exact) == (["b", "a", "c"], ("err-4711",))
    assert found.hits[0].score == pytest.approx(found.hits[0].fused + 1)
    found = case.search(query="what is ERR-4711", mode="lexical")
    assert (ids(found), found.exact) == (["b", "a"], ("err-4711",))
    assert found.hits[0].score > found.hits[1].score


def test_an_exact_match_too_low_for_the_candidates_still_stands_first(case: Case) -> None:
    case.lexical = lambda: leg("a", "b", codes={"err-4711": ("z",)})
    for fields in ({}, {"mode": "lexical"}, {"fusion": {"method": "rrf"}}, {"fusion": {"alpha": 1.0}}):
        found = case.search(query="what is ERR-4711", **fields)
        assert ids(found)[0] == "z"
        assert (found.hits[0].lexical, found.hits[0].dense) == (0.1, None)


def leg_with(exact: dict[str, tuple[int, tuple[str, ...]]]) -> LegFound:
    return LegFound((), Total(0), Outcome(1, False, 1, 0), exact=exact)


@pytest.mark.parametrize(
    ("code", "count", "wanted"),
    [
        ("err-4711", 20, 1.0),
        ("err-4711", 21, None),
        ("err-4711", 0, None),
        ("il-6", 5, 0.2),
        ("il-6", 6, None),
    ],
)
def test_what_an_identifier_adds(code: str, count: int, wanted: float | None) -> None:
    bonus, counted = exact_matches(leg_with({code: (count, ("p",) if count else ())}))
    assert (bonus, counted) == (({}, ()) if wanted is None else ({"p": wanted}, (code,)))


def test_identifiers_add_up() -> None:
    bonus, counted = exact_matches(leg_with({"err-4711": (2, ("p", "q")), "v2.19.1": (1, ("q",)), "il-6": (1, ("q",))}))
    assert bonus == {"p": 1.0, "q": pytest.approx(2.2)}
    assert counted == ("err-4711", "v2.19.1", "il-6")
    assert exact_matches(None) == ({}, ())
    assert rank_alone((), "lexical", bonus) == []


def test_words_that_the_collection_lacks_are_matched_with_typing_errors(case: Case) -> None:
    case.lexical = lambda: leg("a", total=3, words={"authentcation": 0, "server": 3})
    case.more = {"corrected": lambda: leg("d", "a", total=3, words={"authentcation": 1})}
    found = case.search(query="authentcation server")
    assert ids(found)[0] == "d"
    assert (found.corrected, found.total) == (("authentcation",), Total(4, "gte"))
    assert len(case.cluster.sent["corrected"]) == 1
    case.search(query="authentcation server", highlight=True)
    assert "fuzziness" in str(case.cluster.sent["fetch"][0]["highlight"])


def test_a_correction_that_finds_nothing_changes_nothing(case: Case) -> None:
    case.lexical = lambda: leg("a", words={"zzzzzz": 0, "server": 3})
    case.more = {"corrected": lambda: leg("a", words={"zzzzzz": 0})}
    found = case.search(query="zzzzzz server")
    assert (ids(found), found.corrected, found.total) == (["a", "b", "c"], (), Total(3))


def test_words_that_are_there_are_not_looked_for_again(case: Case) -> None:
    case.lexical = lambda: leg("a", words={"authentication": 1, "server": 3})
    found = case.search(query="authentication server")
    assert found.corrected == ()
    assert "corrected" not in case.cluster.sent


def test_a_cluster_that_is_not_ours_answers_nothing(case: Case) -> None:
    case.state = StoreState(("search pipeline braid-hybrid-linear is missing",), 1, False)
    with pytest.raises(StoreNotReady, match="braid-hybrid-linear"):
        case.search(mode="lexical")


def test_a_spent_budget_is_the_caller_s_timeout(case: Case) -> None:
    with pytest.raises(DeadlineExceeded, match="timeout_ms=1 "):
        case.search(deadline=Deadline(at=0.0, budget_ms=1))


def test_a_leg_that_uses_the_budget_up_is_the_caller_s_timeout_and_no_outage(case: Case) -> None:
    asleep = threading.Event()

    def slow() -> dict[str, Any]:
        asleep.wait(0.2)
        raise StoreUnavailable("OpenSearch did not answer within 0.1 s")

    case.lexical = case.dense = slow
    with pytest.raises(DeadlineExceeded):
        case.search(timeout_ms=100)
    case.lexical = slow
    with pytest.raises(DeadlineExceeded):
        case.search(timeout_ms=100, mode="lexical")


def test_the_time_left_goes_down_to_opensearch(case: Case) -> None:
    for case.settings in ({}, {"hybrid_way": "native"}):
        case.search(timeout_ms=5000)
        for body in (body for bodies in case.cluster.sent.values() for body in bodies):
            assert 0 < int(body["timeout"].removesuffix("ms")) <= 5000


def test_a_page_past_the_candidates_is_refused(case: Case) -> None:
    with pytest.raises(InvalidInput, match="candidates") as caught:
        case.search(size=90, **{"from": 20})
    assert [problem.loc for problem in caught.value.problems] == [("body", "size")]
    assert case.search(size=90, candidates=200, **{"from": 20}).hits == ()


@pytest.mark.parametrize(
    ("fields", "settings", "tuned", "depth"),
    [({}, {}, 100, 100), ({}, {}, 300, 300), ({}, {"candidates": 50}, 300, 50), ({"candidates": 70}, {}, 300, 70)],
)
def test_each_leg_gives_the_same_number_of_candidates_on_every_page(
    case: Case, fields: dict[str, Any], settings: dict[str, Any], tuned: int, depth: int
) -> None:
    case.state, case.settings = replace(READY, tuning=FIXED.model_copy(update={"candidates": tuned})), settings
    for start in (0, 10):
        found = case.search(**fields, **{"from": start})
        assert found.depth == depth
        assert case.cluster.sent["lexical"][0]["size"] == depth + queries.TIES
        assert case.cluster.sent["dense"][0]["size"] == depth + queries.TIES
        assert case.cluster.sent["dense"][0]["query"]["knn"]["embedding"]["k"] == depth


def test_pages_fetch_their_own_passages(case: Case) -> None:
    assert ids(case.search(size=2)) == ["a", "b"]
    assert case.cluster.sent["fetch"][0]["query"]["bool"]["filter"][0] == {"ids": {"values": ["a", "b"]}}
    assert ids(case.search(size=2, **{"from": 2})) == ["c"]


def test_what_is_shaped_is_chosen_among_all_candidates(case: Case) -> None:
    found = case.search(size=1, fold_duplicates=True, highlight=True)
    assert (ids(found), dict(found.folded)) == (["a"], {"a": ("b", "c")})  # the canned texts are all alike
    chosen, marked = case.cluster.sent["fetch"]
    assert chosen["query"]["bool"]["filter"][0] == {"ids": {"values": ["a", "b", "c"]}}
    assert "highlight" not in chosen
    assert marked["query"]["bool"]["filter"][0] == {"ids": {"values": ["a"]}}
    assert "highlight" in marked
    case.search(size=1, mmr=True)
    assert "embedding" in case.cluster.sent["fetch"][0]["_source"]


def test_the_native_way_marks_words_in_a_second_request(native: Case) -> None:
    native.search(highlight=True)
    assert native.kinds == ["fetch", "hybrid"]
    assert "highlight" in native.cluster.sent["fetch"][0]


def test_a_rerank_that_nobody_does_is_said(case: Case) -> None:
    assert said(case.search(rerank=True)) == [("rerank", "not-configured")]


def test_a_very_long_query_is_matched_by_its_rarest_words(case: Case) -> None:
    found = case.search(query="".join(chr(0x4E00 + n) for n in range(1000)))
    assert said(found) == [("lexical", "query-cut")]
    assert said(case.search(query="w " * 2000)) == []  # one word


def test_a_query_with_more_clauses_than_the_cluster_takes_is_cut_until_it_fits(case: Case) -> None:
    def lexical() -> dict[str, Any]:
        asked = case.cluster.sent["lexical"][-1]["query"]["bool"]["must"][0]
        if str(asked).count("q") > 60:
            raise TooManyClauses("more than 60", status_code=400, error_type="too_many_clauses")
        return leg("a", "b", "c")

    case.lexical = lexical
    words = " ".join(f"q{first}{second}" for first in "abcdefghij" for second in "abcdefghijklmnopqrst")
    for mode in ("lexical", "hybrid"):
        found = case.search(query=words, mode=mode)
        assert [item.reason for item in found.degraded] == ["query-cut: only its 50 longest words were matched"]
        assert ids(found)


def test_stop_words_alone_are_asked_where_they_are_indexed(case: Case) -> None:
    case.lexical = lambda: leg("a")
    found = case.search(query="IT", mode="lexical")
    assert (ids(found), found.stop_words, said(found)) == (["a"], True, [])
    assert "content.folded" in str(case.cluster.sent["lexical"])
    case.lexical = leg
    assert said(case.search(query="IT", mode="lexical")) == [("lexical", "no-words")]
    assert said(case.search(query="?!", mode="lexical")) == [("lexical", "no-words")]
    assert said(case.search(query="pump", mode="lexical")) == []


def test_a_text_in_which_no_word_counts_is_asked_again_as_stop_words(case: Case) -> None:
    """Those of other languages than English are known by the index alone."""
    answers = iter([leg(), leg("a")])
    case.lexical = lambda: next(answers)
    found = case.search(query="nicht oder", mode="lexical")
    assert (ids(found), found.stop_words, said(found)) == (["a"], True, [])


@pytest.mark.parametrize("query", ["cafe menu", " ".join(f"word{number}" for number in range(40))])
def test_a_text_with_words_spelled_otherwise_or_too_many_is_not_one_of_stop_words(case: Case, query: str) -> None:
    words = {f"{ACCENTS}cafe menu": 1, f"{ACCENTS}cafe": 1} if "cafe" in query else {}
    answers = iter([leg(words=words), leg("a" if words else "", words=words)])
    case.lexical = lambda: next(answers)
    found = case.search(query=query, mode="lexical")
    assert (found.stop_words, found.accents, said(found)) == (False, ("cafe",) if words else (), [])


def test_words_that_no_passage_has_in_other_accents_are_not_looked_up_again_at_once(case: Case) -> None:
    case.kept = case.service()

    for _ in range(2):
        case.search(query="quay menu", mode="lexical")
    assert [word for word in case.cluster.words if word.startswith(ACCENTS)] == [f"{ACCENTS}quay menu"]


def test_words_that_passages_have_in_other_accents_are_asked_again(case: Case) -> None:
    case.lexical = lambda: leg("a", words={f"{ACCENTS}cafe menu": 1, f"{ACCENTS}cafe": 1})
    found = case.search(query="cafe menu", mode="lexical")
    assert found.accents == ("cafe",)
    assert len(case.cluster.sent["lexical"]) == 2


def test_a_page_is_read_anew_when_its_passages_are_replaced_under_it(case: Case) -> None:
    lexical, dense = (
        iter([leg("old1", "old2"), leg("new1", "new2")]),
        iter(
            [leg("old1", "old2"), leg("new1", "new2")],
        ),
    )
    pages = iter([response("old2"), response("new1", "new2")])
    case.lexical, case.dense, case.more["fetch"] = lambda: next(lexical), lambda: next(dense), lambda: next(pages)
    found = case.search()
    assert (ids(found), said(found)) == (["new1", "new2"], [])
    assert case.cluster.params["preference"]


def test_a_page_that_keeps_changing_is_given_and_says_so(case: Case) -> None:
    case.more["fetch"] = lambda: response("b")
    found = case.search()
    assert (ids(found), said(found)) == (["b"], [("fetch", "changing")])
    assert len(case.cluster.sent["fetch"]) == 3


def test_a_reading_anew_that_fails_leaves_the_first(case: Case) -> None:
    case.more["fetch"] = lambda: response("a")
    answers = iter([leg("a", "b", total=9)])

    def once() -> dict[str, Any]:
        return next(answers, None) or down()

    case.lexical, case.dense = once, once
    found = case.search(mode="lexical")
    assert (ids(found), said(found)) == (["a"], [("fetch", "store-unavailable")])


def test_a_shard_that_fails_while_the_page_is_read_is_no_deletion(case: Case) -> None:
    case.more["fetch"] = lambda: response("a", failed=1)
    found = case.search()
    assert (ids(found), said(found)) == (["a"], [("fetch", "partial")])
    assert len(case.cluster.sent["fetch"]) == 1


def test_a_leg_that_is_switched_off_is_not_asked_and_that_is_stated(case: Case) -> None:
    found = case.switched(vector=False).search()
    assert (ids(found), said(found)) == (["a", "b"], [("vector", "switched-off")])
    assert (found.plan.way, found.total, case.kinds) == ("lexical", Total(9), ["fetch", "lexical"])
    found = case.switched(lexical=False).search()
    assert (ids(found), said(found)) == (["b", "c"], [("lexical", "switched-off")])
    assert (found.plan.way, case.kinds) == ("dense", ["dense", "fetch"])
    with pytest.raises(FeatureDisabled, match="both off"):
        case.switched(lexical=False, vector=False).search()


def test_with_the_text_leg_off_an_encoder_that_fails_is_an_error(case: Case) -> None:
    case.encoder = CannedEncoder(fails=True)
    with pytest.raises(EncoderError):
        case.switched(lexical=False).search()


def test_a_weight_that_is_switched_off_is_fixed(case: Case) -> None:
    case.state = READY
    predicted = case.search().weight
    assert predicted is not None
    assert predicted.features, "no model was asked"
    fixed = case.switched(learned_fusion=False).search()
    assert fixed.weight is not None
    assert (fixed.weight.source, fixed.weight.features, said(fixed)) == ("default", None, [])
    asked = case.switched(learned_fusion=False).search(fusion={"learned": True})
    assert said(asked) == [("fusion", "switched-off")]


def test_a_query_that_is_an_identifier_ends_with_the_leg_that_finds_it(case: Case) -> None:
    case.lexical = lambda: leg("a", "b", codes={"err-4711": ("b",)})
    found = case.search(query="ERR-4711")
    assert (ids(found), found.plan.way, said(found)) == (["b", "a"], "lexical", [])
    assert "as it is written: err-4711" in found.plan.reason
    assert case.kinds == ["fetch", "lexical"]
    assert "query_encode_ms" not in found.timings
    case.lexical = lambda: leg("a", "b", codes={})
    found = case.search(query="ERR-4711")
    assert (set(ids(found)), found.plan.way) == ({"a", "b", "c"}, "legs")
    assert len(case.cluster.sent["lexical"]) == 1


def test_an_identifier_s_leg_that_fails_leaves_the_other(case: Case) -> None:
    case.lexical = down
    found = case.search(query="ERR-4711")
    assert (ids(found), said(found)) == (["b", "c"], [("lexical", "store-unavailable")])


def lead(by: float) -> Leg:
    def found() -> dict[str, Any]:
        answer = leg("a", "b")
        answer["hits"]["hits"][1]["_score"] = 2.0 * (1 - by)
        return answer

    return found


def test_a_lead_ends_the_search_where_the_flag_is_on(case: Case) -> None:
    case.lexical = lead(0.9)
    assert case.search().plan.way == "legs"
    found = case.switched(early_exit=True).search()
    assert (found.plan.way, ids(found), case.kinds) == ("lexical", ["a", "b"], ["fetch", "lexical"])
    assert "early exit" in found.plan.reason
    assert said(found) == []
    case.lexical = lead(0.1)
    assert case.switched(early_exit=True).search().plan.way == "legs"


def slowly(answer: Leg, seconds: float) -> Leg:
    def found() -> dict[str, Any]:
        time.sleep(seconds)
        return answer()

    return found


def test_a_leg_gets_less_time_than_there_is_so_that_the_page_can_still_be_made(case: Case) -> None:
    case.search(timeout_ms=10_000)
    (body,) = case.cluster.sent["dense"]
    assert 6000 < int(body["timeout"].removesuffix("ms")) <= 7200
    (body,) = case.cluster.sent["fetch"]
    assert 8000 < int(body["timeout"].removesuffix("ms")) <= 9000


def test_a_text_leg_that_does_not_come_back_leaves_the_other(case: Case) -> None:
    case.lexical = slowly(case.lexical, 3)
    found = case.search(timeout_ms=1500)
    assert (ids(found), said(found)) == (["b", "c"], [("lexical", "deadline-exceeded")])


def test_the_dense_side_is_skipped_where_it_has_lately_taken_more_than_is_left(case: Case) -> None:
    dense, case.dense = case.dense, slowly(case.dense, 0.4)
    case.kept = case.service()
    for _ in range(5):
        assert said(case.search()) == []
    sent = len(case.cluster.sent["dense"])
    found = case.search(timeout_ms=200)
    assert (ids(found), said(found), found.plan.way) == (["a", "b"], [("vector", "deadline")], "lexical")
    assert len(case.cluster.sent["dense"]) == sent
    assert "query_encode_ms" not in found.timings
    assert "lately taken" in found.degraded[0].reason
    assert said(case.search(timeout_ms=20_000)) == []
    case.dense = dense


def test_a_store_that_can_not_say_whether_it_changed_is_believed_for_a_while(case: Case) -> None:
    case.max_age_s = 0.0
    case.kept = case.service()
    assert said(case.search()) == []
    case.unknown = True
    for _ in range(2):
        found = case.search()
        assert (ids(found), said(found)) == (["a", "b", "c"], [("readiness", "unchecked")])
    case.unknown = False
    case.state = replace(READY, differences=("pipeline x is missing",))
    with pytest.raises(StoreNotReady, match="pipeline x"):
        case.search()
    case.unknown = True
    with pytest.raises(StoreUnavailable):
        case.search()


def test_a_store_that_was_never_seen_is_not_believed(case: Case) -> None:
    case.unknown = True
    with pytest.raises(StoreUnavailable):
        case.search()


def test_an_identifier_s_leg_that_hangs_leaves_time_for_the_other(case: Case) -> None:
    case.lexical = slowly(case.lexical, 3)
    found = case.search(query="ERR-4711", timeout_ms=2000)
    assert (ids(found), said(found)) == (["b", "c"], [("lexical", "deadline-exceeded")])


def test_lexical_scores_are_on_one_scale_on_every_version(case: Case) -> None:
    before = case.search(explain=True)
    case.state = replace(READY, lexical_factor=2.2)
    after = case.search(explain=True)
    assert ids(after) == ids(before)
    assert [hit.lexical for hit in after.hits] == [
        hit.lexical and pytest.approx(2.2 * hit.lexical) for hit in before.hits
    ]
    assert [hit.fused for hit in after.hits] == [pytest.approx(hit.fused) for hit in before.hits]
