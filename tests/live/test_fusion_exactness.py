"""Fused orders against an oracle in numpy, made from the legs' own full lists: on 1, 3, 6 and 12 shards.

One and three shards are whole services over HTTP. Six and twelve are indexes on the node of the latter, filled by
reindexing and searched through the same Flask application in this process: what differs there is the shards alone.

BM25 counts words per shard, so an order may move with the number of shards where the legs themselves move: everywhere
but in the last part each search is held against the legs of its own index. That fusion itself adds nothing to that is
shown by a corpus whose counts are the same on each shard (`test_the_order_does_not_move_with_the_shards`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.factory import create_app
from app.api.services import Services
from app.config import load_settings
from app.embedding.encoder import Encoder, load_encoder
from app.store.client import Cluster
from app.store.heads import ensure_index
from app.store.rendering import compose, render
from tests.conftest import running_braid
from tests.heads import copy_heads, put_in_force

pytestmark = [pytest.mark.live, pytest.mark.majors]

WORDS = ["valve", "pump", "motor", "crane", "bridge", "tower", "turbine", "boiler", "engine", "gear", "chain", "wheel"]
QUERIES = ["valve of the pump", "gear gear chain", "which motor is checked every day?"]
LONELY = ["zzz unknown", "quartz"]
"""The first matches no word of the corpus; the second stands, once and in texts of one length, in one source alone."""
ALL = 1000
"""Candidates: more than there are passages, so that nothing is cut."""

ROUNDED = 1e-5 if os.environ.get("BRAID_OPENSEARCH_VERSION") == "3.6" else 1e-9
"""Difference of fused scores: on 3.6 the last digit of a passage's vector score depends on how many are asked for."""

Answer = dict[str, Any]
Scores = list[tuple[str, float]]


def rows() -> Iterator[dict[str, Any]]:
    for n in range(66):
        first, second = WORDS[n % 12], WORDS[(n * 5 + n // 12) % 12]
        yield {
            "_id": f"d{n:02}",
            "title": f"{first} {n}",
            "text": f"The {first} number {n} stands beside the {second}. It is checked every {n % 7 + 1} days.",
            "source_id": "odd" if n % 2 else "even",
            "topic_tags": [f"week {n % 3}"],
        }
    for n in range(9):  # identical passages under different ids
        text = f"The {WORDS[n // 3]} lies in the shed, the pump is out of order."
        yield {"_id": f"twin{n}", "title": "Twin", "text": text, "source_id": "twins", "topic_tags": ["week 1"]}
    things = ["apples", "violins", "moon", "letters", "dentists", "snow", "taxes", "bees"]
    for n, thing in enumerate(things):  # one word in common, which says nothing of what stands above what
        yield {"_id": f"flat{n}", "text": f"quartz number {n}, a note about {thing}", "source_id": "flat"}
        long = f"basalt number {n}, a note about {thing}{' so it goes on and on' * 15}{' more' * (n % 2)}"
        yield {"_id": f"nearly{n}", "text": long, "source_id": "nearly"}
    for n in range(6):
        text = f"The pump {n} is scrap: the valve broke {n + 2} times."
        yield {"_id": f"doomed{n}", "title": "Scrap", "text": text, "source_id": "doomed"}


@dataclass
class Searcher:
    """A way to ask one index; `legs` are kept, since nothing is written between most tests."""

    shards: int
    post: Callable[[str, Answer], tuple[int, Answer]]
    delete: Callable[[str], int]
    _legs: dict[str, Scores] = field(default_factory=dict)

    def search(self, query: str, **body: Any) -> Answer:
        status, found = self.post(
            "/v1/search", {"query": query, "size": 100, "rerank": False, "timeout_ms": 60_000, **body}
        )
        assert status == 200, found
        assert found["degraded"] == []
        return found

    def legs(self, query: str, narrowed: dict[str, Any]) -> tuple[Scores, Scores]:
        """The full lists of both legs: passages with their scores, best first."""
        for mode in ("lexical", "dense"):
            key = json.dumps([mode, query, narrowed])
            if key not in self._legs:
                found = self.search(query, mode=mode, size=ALL, candidates=ALL, filter=narrowed)["results"]
                scored = [(item["id"], item["scores"][mode]) for item in found]
                assert scored == sorted(scored, key=lambda item: (-item[1], item[0]))  # ties by passage id
                assert [item["score"] for item in found] == [score for _, score in scored]
                self._legs[key] = scored
        lexical, dense = (self._legs[json.dumps([mode, query, narrowed])] for mode in ("lexical", "dense"))
        return lexical, dense

    def forget(self) -> None:
        self._legs.clear()


def over_http(up: dict[str, Any], shards: int) -> Iterator[Searcher]:
    with httpx2.Client(base_url=up["url"], timeout=60, trust_env=False) as client:

        def post(path: str, body: Answer) -> tuple[int, Answer]:
            answer = client.post(path, json=body)
            return answer.status_code, answer.json()

        yield Searcher(shards, post, lambda document: client.delete(f"/v1/documents/{document}").status_code)


@contextmanager
def in_process(up: dict[str, Any], encoder: Encoder, *, alias: str, shards: int, **more: Any) -> Iterator[Searcher]:
    """The application of the service that is `up`, in this process, searching `alias`; `more` are settings."""
    own = load_settings(
        opensearch_url=up["opensearch_url"],
        redis_url=up["redis_url"],
        shards=up["shards"],
        query_log="off",
        **more,
    )
    whole = Cluster(own.opensearch)
    services = Services(own, whole if alias == whole.read_alias else whole.within(alias), encoder)
    client = create_app(services).test_client()

    def post(path: str, body: Answer) -> tuple[int, Answer]:
        answer = client.post(path, json=body)
        return answer.status_code, answer.get_json()

    yield Searcher(shards, post, lambda document: client.delete(f"/v1/documents/{document}").status_code)
    services.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows()))
    return path


@pytest.fixture(scope="module")
def up_1(node_settings: Any, corpus: Path) -> Iterator[dict[str, Any]]:
    with running_braid(str(corpus)) as up:
        yield {**up, "shards": 1}


@pytest.fixture(scope="module")
def up_3(node_settings: Any, corpus: Path) -> Iterator[dict[str, Any]]:
    with running_braid(str(corpus), env={"BRAID_SHARDS": "3"}) as up:
        yield {**up, "shards": 3}


@pytest.fixture(scope="module")
def encoder(up_1: dict[str, Any]) -> Encoder:
    return load_encoder(load_settings())


@pytest.fixture(scope="module")
def on_1(up_1: dict[str, Any]) -> Iterator[Searcher]:
    yield from over_http(up_1, 1)


@pytest.fixture(scope="module")
def on_3(up_3: dict[str, Any]) -> Iterator[Searcher]:
    yield from over_http(up_3, 3)


@contextmanager
def index_of(up: dict[str, Any], name: str, shards: int) -> Iterator[Cluster]:
    """An index as the service's own, but for its shards."""
    own = load_settings(opensearch_url=up["opensearch_url"], opensearch_timeout_s=60, shards=shards)
    cluster = Cluster(own.opensearch)
    cluster.request("PUT", f"/{name}", body=compose(render(own, "faiss-exact", 384)))
    ensure_index(cluster.within(name))
    yield cluster
    cluster.request("DELETE", f"/{name},{cluster.within(name).heads_index}")
    cluster.close()


@pytest.fixture(scope="module")
def on_6(up_3: dict[str, Any], encoder: Encoder) -> Iterator[Searcher]:
    yield from copied(up_3, encoder, 6)


@pytest.fixture(scope="module")
def on_12(up_3: dict[str, Any], encoder: Encoder) -> Iterator[Searcher]:
    yield from copied(up_3, encoder, 12)


def copied(up: dict[str, Any], encoder: Encoder, shards: int) -> Iterator[Searcher]:
    name = f"oracle-{shards}"
    with index_of(up, name, shards) as cluster:
        body = {"source": {"index": "braid-passages"}, "dest": {"index": name}}
        done = cluster.request("POST", "/_reindex", params={"refresh": "true"}, body=body)
        assert done["created"] == len(list(rows()))
        copy_heads(cluster, cluster.within(name), [row["_id"] for row in rows()])
        with in_process(up, encoder, alias=name, shards=shards) as searcher:
            yield searcher


@pytest.fixture(params=["on_1", "on_3"], ids=["1 shard", "3 shards"])
def http_service(request: pytest.FixtureRequest) -> Searcher:
    found: Searcher = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["on_1", "on_3", "on_6", "on_12"], ids=["1 shard", "3 shards", "6 shards", "12 shards"])
def service(request: pytest.FixtureRequest) -> Searcher:
    found: Searcher = request.getfixturevalue(request.param)
    return found


# the oracle


def scaled(scores: Scores, technique: str) -> tuple[dict[str, float], float]:
    """A leg's passages on a common scale, and what an absent one counts."""
    values = np.array([score for _, score in scores], np.float64)
    absent = 0.0
    if not len(values):
        return {}, 0.0
    if technique == "min_max":
        least, spread = 0.02 * values.max(), np.ptp(values)
        if spread == 0:
            made = np.ones_like(values)
        elif spread < least:  # the guard: no signal
            made = 1 - (values.max() - values) / least
        else:
            made = (values - values.min()) / spread
            made = np.where(made == 0, 0.001, made)
    elif technique == "l2":
        made = values / np.sqrt((values**2).sum())
    elif values.std() <= 0.005 * values.max():
        made = np.ones_like(values)
    else:
        made = (values - values.mean()) / values.std()
        absent = float(made.min())
    return dict(zip((name for name, _ in scores), made.tolist(), strict=True)), absent


def linear(legs: tuple[Scores, Scores], alpha: float, technique: str = "min_max") -> Scores:
    (left, left_absent), (right, right_absent) = (scaled(leg, technique) for leg in legs)
    return best_first(
        {
            name: (1 - alpha) * left.get(name, left_absent) + alpha * right.get(name, right_absent)
            for name in {**left, **right}
        }
    )


def rrf(legs: tuple[Scores, Scores]) -> Scores:
    fused: dict[str, float] = {}
    for leg in legs:
        for rank, (name, _) in enumerate(leg, 1):
            fused[name] = fused.get(name, 0.0) + 1 / (60 + rank)
    return best_first(fused)


def best_first(fused: dict[str, float]) -> Scores:
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


def oracle(legs: tuple[Scores, Scores], fusion: dict[str, Any]) -> Scores:
    if fusion["method"] == "rrf":
        return rrf(legs)
    return linear(legs, fusion["alpha"], fusion.get("normalization", "min_max"))


def same(found: Answer, wanted: Scores) -> None:
    """The same passages in the same order with the same scores."""
    results = found["results"]
    assert [item["id"] for item in results] == [name for name, _ in wanted]
    assert [item["score"] for item in results] == pytest.approx([score for _, score in wanted], rel=1e-6, abs=ROUNDED)
    assert all(item["score"] == item["scores"]["fused"] for item in results)


FUSIONS: list[dict[str, Any]] = [
    {"method": "rrf"},
    *({"method": "linear", "alpha": alpha} for alpha in (0.0, 0.25, 0.6, 1.0)),
    {"method": "linear", "alpha": 0.3, "normalization": "z_score"},
    {"method": "linear", "alpha": 0.8, "normalization": "z_score"},
    {"method": "linear", "alpha": 0.3, "normalization": "l2"},
]
FILTERS: list[dict[str, Any]] = [{}, {"source_id": ["odd"]}, {"topic_tags": ["week 1"], "source_id": ["even", "twins"]}]


@pytest.mark.parametrize(
    ("query", "narrowed"),
    [*((query, {}) for query in (*QUERIES[1:], LONELY[1])), (QUERIES[0], FILTERS[1]), (LONELY[0], FILTERS[1])],
)
def test_the_fused_order_is_the_oracle_s(http_service: Searcher, query: str, narrowed: dict[str, Any]) -> None:
    every_fusion(http_service, query, narrowed)


@pytest.mark.parametrize(
    ("query", "narrowed"),
    [(QUERIES[0], {}), (QUERIES[0], FILTERS[2]), (LONELY[0], {})],
    ids=["all", "tags", "no words"],
)
def test_it_is_so_on_any_number_of_shards(service: Searcher, query: str, narrowed: dict[str, Any]) -> None:
    every_fusion(service, query, narrowed)


def every_fusion(service: Searcher, query: str, narrowed: dict[str, Any]) -> None:
    lexical, dense = service.legs(query, narrowed)
    assert dense
    for n, fusion in enumerate(FUSIONS):
        wanted = oracle((lexical, dense), fusion)
        explain = n % 2 == 0  # which changes nothing
        found = service.search(query, fusion=fusion, filter=narrowed, candidates=200, explain=explain)
        same(found, wanted)
        assert found["total"] == len(wanted)
        for item in found["results"]:
            assert item["scores"]["lexical"] == dict(lexical).get(item["id"])
            assert item["scores"]["dense"] == dict(dense).get(item["id"])
        if explain:
            assert found["explanation"]["way"] == "legs"


def test_the_corpus_has_what_the_oracle_is_to_be_tried_with(http_service: Searcher) -> None:
    lexical, dense = http_service.legs("zzz unknown", {})
    assert (lexical, len(dense)) == ([], len(list(rows())))
    lexical, dense = http_service.legs("valve of the pump", {"source_id": ["twins"]})
    assert [len({score for _, score in leg}) < len(leg) for leg in (lexical, dense)] == [True, True]  # ties


def test_identical_passages_stand_by_their_ids(service: Searcher) -> None:
    for fusion in FUSIONS[:3]:
        found = service.search("the pump in the shed", fusion=fusion, filter={"source_id": ["twins"]})["results"]
        assert len(found) == 9
        if service.shards == 1:  # over several, twins on different shards have different scores
            for first, second in pairwise(found):
                assert first["text"] != second["text"] or fusion["method"] == "rrf" or first["id"] < second["id"]
        for first, second in pairwise(found):
            assert first["score"] > second["score"] or first["id"] < second["id"]


@pytest.mark.parametrize("fusion", [FUSIONS[0], FUSIONS[3], FUSIONS[5]], ids=["rrf", "min_max", "z_score"])
@pytest.mark.parametrize("query", [QUERIES[0], "quartz"])
def test_each_leg_is_cut_at_the_candidates(service: Searcher, query: str, fusion: dict[str, Any]) -> None:
    lexical, dense = service.legs(query, {})
    # of passages equally near at the cut each shard takes any: k-NN knows no second sort
    depth = next(k for k in range(12, 40) if dense[k - 1][1] > dense[k][1])
    wanted = oracle((lexical[:depth], dense[:depth]), fusion)
    found = service.search(query, fusion=fusion, size=depth, candidates=depth, exact_total=True)
    same(found, wanted[:depth])
    lonely = [item for item in found["results"] if None in (item["scores"]["lexical"], item["scores"]["dense"])]
    assert lonely or fusion["method"] == "rrf"
    matched = {name for name, _ in lexical}
    count = len(matched | {name for name, _ in dense[:depth]})
    assert (found["total"], found["total_relation"]) == (count, "eq")
    bounded = service.search(query, fusion=fusion, size=depth, candidates=depth)
    assert bounded["total"] <= count
    assert (bounded["total_relation"] == "eq") == (len(matched) <= depth)


def test_pages_are_cuts_of_one_list(http_service: Searcher) -> None:
    for fusion, depth in ((FUSIONS[0], 30), (FUSIONS[2], 200), ({"method": "linear"}, 30)):
        common = {"fusion": fusion, "candidates": depth}
        whole = [item["id"] for item in http_service.search(QUERIES[0], **common, size=30)["results"]]
        pages = [http_service.search(QUERIES[0], **common, size=7, **{"from": start}) for start in range(0, 24, 7)]
        pages.append(http_service.search(QUERIES[0], **common, size=2, **{"from": 28}))
        found = [item["id"] for page in pages for item in page["results"]]
        assert found == whole
        assert len(set(found)) == 30
        assert len({page["total"] for page in pages}) == 1
    last = http_service.search(QUERIES[0], filter={"source_id": ["twins"]}, size=5, **{"from": 7})
    assert (len(last["results"]), last["total"]) == (2, 9)
    assert http_service.search(QUERIES[0], filter={"source_id": ["twins"]}, size=5, **{"from": 20})["results"] == []


def test_no_hits_at_all(http_service: Searcher) -> None:
    for fusion in (FUSIONS[0], *FUSIONS[-3:]):
        found = http_service.search("valve", fusion=fusion, filter={"source_id": ["nobody"]})
        assert (found["results"], found["total"]) == ([], 0)


def test_a_leg_without_signal_follows_the_other(service: Searcher) -> None:
    lexical, dense = service.legs("quartz", {"source_id": ["flat"]})
    assert len(lexical) == len(dense) == 8
    scores = [score for _, score in lexical]
    for alpha in (0.1, 0.5, 0.9):
        found = service.search("quartz", fusion={"method": "linear", "alpha": alpha}, filter={"source_id": ["flat"]})
        same(found, linear((lexical, dense), alpha))
        if service.shards == 1:
            assert len(set(scores)) == 1
            assert [item["id"] for item in found["results"]] == [name for name, _ in dense]


def test_a_leg_with_next_to_no_signal_is_kept_small(on_1: Searcher) -> None:
    narrowed = {"source_id": ["nearly"]}
    lexical, dense = on_1.legs("basalt", narrowed)
    scores = [score for _, score in lexical]
    assert 0 < max(scores) - min(scores) < 0.02 * max(scores)
    found = on_1.search("basalt", fusion={"method": "linear", "alpha": 0.6}, filter=narrowed)
    same(found, linear((lexical, dense), 0.6))
    lowest = min(0.4 * scaled(lexical, "min_max")[0][name] for name, _ in lexical)
    assert lowest > 0.02  # the plugin would give those that are one word longer 0.0004


def test_the_weight_that_is_learned_is_the_weight_that_is_used(service: Searcher) -> None:
    sources = set()
    for query in QUERIES:
        found = service.search(query, candidates=200, explain=True)
        fusion = found["explanation"]["fusion"]
        sources.add(fusion["weight"])
        same(found, linear(service.legs(query, {}), fusion["alpha"], fusion["normalization"]))
        fixed = service.search(query, candidates=200, explain=True, fusion={"learned": False})
        assert fixed["explanation"]["fusion"]["weight"] == "default"
        same(fixed, linear(service.legs(query, {}), 0.4))
    assert sources <= {"learned", "default"}


words = st.lists(st.sampled_from([*WORDS, "the", "checked", "shed", "quartz", "steam"]), min_size=1, max_size=5)
narrowings = st.sampled_from([*FILTERS, {"source_id": ["twins", "flat"]}, {"source_id": ["nobody"]}])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words.map(" ".join),
    st.sampled_from(["linear", "rrf"]),
    st.sampled_from(["min_max", "z_score", "l2"]),
    st.integers(0, 20).map(lambda n: n / 20),
    narrowings,
    st.integers(1, 60),
    st.integers(0, 60),
)
def test_any_search_is_a_cut_of_the_oracle_s_list(
    on_3: Searcher,
    query: str,
    method: str,
    technique: str,
    alpha: float,
    narrowed: dict[str, Any],
    size: int,
    start: int,
) -> None:
    fusion: dict[str, Any] = {"method": method}
    if method == "linear":
        fusion |= {"alpha": alpha, "normalization": technique}
    wanted = oracle(on_3.legs(query, narrowed), fusion)
    found = on_3.search(query, fusion=fusion, filter=narrowed, size=size, candidates=200, **{"from": start})
    same(found, wanted[start : start + size])
    assert found["total"] == len(wanted)


# the cluster's own fusion


NATIVE_FUSIONS: list[dict[str, Any]] = [
    {"method": "rrf"},
    *({"method": "linear", "alpha": alpha} for alpha in (0.0, 0.25, 0.5, 1.0)),
    {"method": "linear", "alpha": 0.3, "normalization": "l2"},
]


@pytest.mark.majors
@pytest.mark.parametrize("shards", [1, 3])
def test_the_native_order_is_the_oracle_s_up_to_ties(
    shards: int, encoder: Encoder, request: pytest.FixtureRequest
) -> None:
    """The candidates are more than there are passages, so that those of each shard are those of all."""
    up, searcher = request.getfixturevalue(f"up_{shards}"), request.getfixturevalue(f"on_{shards}")
    with in_process(up, encoder, shards=shards, alias="braid-passages", hybrid_way="native") as native:
        for query in QUERIES:
            for narrowed in FILTERS:
                legs = searcher.legs(query, narrowed)
                for n, fusion in enumerate(NATIVE_FUSIONS):
                    explain = n % 2 == 0
                    found = native.search(query, fusion=fusion, filter=narrowed, candidates=200, explain=explain)
                    if fusion["method"] == "rrf":
                        within_ranks(found["results"], legs)
                    else:
                        # explained scores are normalised twice
                        up_to_ties(found["results"], oracle(legs, fusion)[:100], within=1e-3 if explain else 1e-4)
                    if not explain:
                        assert {item["scores"]["lexical"] for item in found["results"]} == {None}
                        continue
                    way = found["explanation"]["way"]
                    assert way == "native" or (fusion["method"] == "rrf" and shards > 1)  # RRF of 2.19 is per shard
                    for item in found["results"]:
                        for leg, scores in zip(("lexical", "dense"), legs, strict=True):
                            wanted = dict(scores).get(item["id"])
                            assert item["scores"][leg] == (None if wanted is None else pytest.approx(wanted, rel=1e-5))
        fixed = native.search(QUERIES[0], candidates=200)
        up_to_ties(fixed["results"], linear(searcher.legs(QUERIES[0], {}), 0.4)[:100])
        page = native.search(QUERIES[0], candidates=200, size=5, **{"from": 3})
        assert [item["id"] for item in page["results"]] == [item["id"] for item in fixed["results"]][3:8]
        past = native.search(QUERIES[0], fusion={"alpha": 0.5}, filter={"source_id": ["twins"]}, size=5, **{"from": 50})
        assert past["results"] == []


@pytest.mark.majors
def test_a_native_page_is_shaped_as_one_of_the_legs(on_1: Searcher, up_1: dict[str, Any], encoder: Encoder) -> None:
    with in_process(up_1, encoder, shards=1, alias="braid-passages", hybrid_way="native") as native:
        common = {"fusion": {"alpha": 0.25}, "size": 8, "candidates": 200}
        found, wanted = (
            way.search(QUERIES[0], **common, fold_duplicates=True, max_per_document=1)["results"]
            for way in (native, on_1)
        )
        # of identical passages, either may stand for the other
        assert [item["score"] for item in found] == pytest.approx([item["score"] for item in wanted], abs=1e-4)
        assert [len(item["duplicates"]) for item in found] == [len(item["duplicates"]) for item in wanted]


def up_to_ties(results: Sequence[Answer], wanted: Scores, within: float = 1e-4) -> None:
    assert [item["score"] for item in results] == pytest.approx([score for _, score in wanted], abs=within)
    known = dict(wanted)
    assert {item["id"] for item in results} == known.keys()
    for item in results:
        assert item["score"] == pytest.approx(known[item["id"]], abs=within)


def within_ranks(results: Sequence[Answer], legs: tuple[Scores, Scores]) -> None:
    """Native ranks of equal scores are any of theirs, so a fused score lies between two."""
    assert [item["score"] for item in results] == sorted((item["score"] for item in results), reverse=True)
    assert len(results) == min(100, len({name for leg in legs for name, _ in leg}))
    for item in results:
        least = most = 0.0
        for leg in legs:
            own = dict(leg).get(item["id"])
            places = [rank for rank, (_, score) in enumerate(leg, 1) if score == own]
            if places:
                least, most = least + 1 / (60 + places[-1]), most + 1 / (60 + places[0])
        assert least - 1e-6 <= item["score"] <= most + 1e-6


# one order for all numbers of shards


GROUPS = [
    "valve",
    "pump",
    "motor",
    "crane",
    "bridge",
    "bridge",
    "turbine",
    "boiler",
    "boiler",
    "boiler",
    "chain",
    "wheel",
]


def test_the_order_does_not_move_with_the_shards(up_3: dict[str, Any], encoder: Encoder) -> None:
    """Twelve groups of the same lengths and word counts, spread evenly: BM25 of one word is the same but for a factor.

    A factor moves neither ranks nor any of the normalisations. Groups with the same word are ties throughout.
    """
    texts = [f"{'gear ' * (kind % 3 + 1)}{'beside ' * (kind % 4)}{word}" for word in GROUPS for kind in range(8)]
    vectors = encoder.encode_passages(texts)
    orders: dict[str, list[Scores]] = {}
    for shards in (1, 3, 6, 12):
        name = f"even-{shards}"
        with index_of(up_3, name, shards) as cluster:
            route = routes(cluster, name, shards)
            lines: list[Any] = []
            for n, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
                lines.append({"index": {"_id": f"p{n:03}", "routing": route[n // 8 % shards]}})
                passage = {"document_id": f"d{n}", "text": text, "tenant": "default", "acl": ["public"]}
                lines.append({**passage, "content_hash": "v1", "embedding": vector.tolist()})
            payload = "".join(json.dumps(line) + "\n" for line in lines).encode()
            done = cluster.request("POST", f"/{name}/_bulk", params={"refresh": "true"}, body=payload)
            assert not done["errors"]
            put_in_force(cluster.within(name), [f"d{n}" for n in range(len(texts))], "v1")
            with in_process(up_3, encoder, shards=shards, alias=name) as searcher:
                for fusion in FUSIONS[:6]:
                    found = searcher.search("gear", fusion=fusion, candidates=200)
                    same(found, oracle(searcher.legs("gear", {}), fusion))
                    scored = [(item["id"], item["score"]) for item in found["results"]]
                    orders.setdefault(json.dumps(fusion), []).append(scored)
    for fusion, (first, *others) in orders.items():
        assert len(first) == len(texts)
        assert len({score for _, score in first}) < len(texts) or "rrf" in fusion
        for other in others:
            assert [name for name, _ in other] == [name for name, _ in first], fusion
            assert [score for _, score in other] == pytest.approx([score for _, score in first], abs=1e-5)


def routes(cluster: Cluster, index: str, shards: int) -> dict[int, str]:
    """A routing value for each shard."""
    found: dict[int, str] = {}
    for n in range(1000):
        answer = cluster.request("GET", f"/{index}/_search_shards", params={"routing": str(n)})
        found.setdefault(answer["shards"][0][0]["shard"], str(n))
        if len(found) == shards:
            break
    return found


# last, since deletions move what BM25 counts


def test_deleted_documents_are_gone_from_every_page(service: Searcher) -> None:
    query, common = (
        "the scrap pump and the broken valve",
        {"candidates": 200, "fusion": {"method": "linear", "alpha": 0.5}},
    )
    service.forget()
    before = service.search(query, **common)
    assert service.delete("doomed0") == 204
    first = service.search(query, **common, size=4)
    same(first, linear(service.legs(query, {}), 0.5)[:4])
    assert first["total"] == before["total"] - 1
    shown = [item["document_id"] for item in first["results"]]
    unseen = next(f"doomed{n}" for n in range(1, 6) if f"doomed{n}" not in shown)
    assert service.delete(unseen) == 204
    service.forget()
    second = service.search(query, **common, size=96, **{"from": 4})
    same(second, linear(service.legs(query, {}), 0.5)[4:100])
    assert second["total"] == before["total"] - 2
    seen = [item["document_id"] for item in (*first["results"], *second["results"])]
    assert len(set(seen)) == len(seen)
    assert not {"doomed0", unseen} & set(seen)
    for fusion in ({"method": "rrf"}, {"method": "linear"}):
        found = service.search(query, fusion=fusion, candidates=200)
        assert not {"doomed0", unseen} & {item["document_id"] for item in found["results"]}
