"""Collected legs and the cluster that gives them, made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.config import Settings, load_settings
from app.deadline import Deadline
from app.errors import BraidError, StoreError
from app.evaluation.collect import QueryLegs
from app.passage import Candidate
from app.querytext import read_query
from app.search.reranking import Subject
from app.store.client import Cluster
from app.store.queries import TIES
from tests.unit.searches import ACCENTS, answer_searches, checked_word, searched_code

Scores = Mapping[str, float]


def candidates(scores: Scores) -> tuple[Candidate, ...]:
    """Passages ``<document>/<number>`` (or a document's only one) with their scores, best first."""
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Candidate(name, name.split("/", maxsplit=1)[0], score) for name, score in ranked)


def query_legs(lexical: Scores, dense: Scores, *, text: str = "a query", bonus: Scores | None = None) -> QueryLegs:
    return QueryLegs(read_query(text), candidates(lexical), candidates(dense), dict(bonus or {}), 2.0, 3.0)


class CannedEncoder:
    """The vector of a text names it: position n is 1 for the n-th text that was asked for."""

    name = "canned"

    def __init__(self, texts: Sequence[str]) -> None:
        self._place = {text: place for place, text in enumerate(texts)}

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.eye(len(self._place), dtype=np.float32)[[self._place[text] for text in texts]]

    def within(self, deadline: Deadline) -> Self:
        return self

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = self.encode_queries([text])[0]
        return vector


Answer = Callable[[str, dict[str, Any]], Scores]
"""Query's text, body of the request -> what that leg scores."""


class CannedCluster(Cluster):
    """Answers each leg of each query from two functions; what they raise is the cluster's error.

    `asked` holds leg, text and time of each request; `failed_shards` is a function of leg and text, `exact` one of the
    text: the passages that hold its identifiers; `writes` counts what was written to the index. Passages are there
    when they are read, unless they are `deleted`; `away` is raised in their place.
    """

    def __init__(self, texts: Sequence[str], lexical: Answer, dense: Answer) -> None:
        super().__init__(canned_settings().opensearch)
        self.known = list(texts)
        self._legs = {"lexical": lexical, "dense": dense}
        self._lock = threading.Lock()
        self.asked: list[tuple[str, str, float]] = []
        self.failed_shards: Callable[[str, str], int] = lambda leg, text: 0
        self.bodies: list[dict[str, Any]] = []
        self.exact: Callable[[str], list[str]] = lambda text: []
        self.writes = 0
        self.deleted: set[str] = set()
        self.away: Callable[[], StoreError | None] = lambda: None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> Any:
        if path == f"/{self.read_alias}/_stats/docs":
            shards = {"0": [{"seq_no": {"max_seq_no": self.writes}}]}
            return {"indices": {f"{self.read_alias}-000001": {"uuid": "u", "shards": shards}}}
        assert (method, path.rpartition("/")[0]) == ("POST", f"/{self.read_alias}")
        if isinstance(body, dict) and "exists" in body["query"]:  # a passage whose score is known: there is none
            return {"hits": {"hits": []}}
        return answer_searches(path, body, self._answer)

    def _answer(self, body: dict[str, Any]) -> Any:
        if (word := checked_word(body)) is not None:
            return _answer([], int(not word.startswith(ACCENTS)))
        if "must" not in body["query"].get("bool", {"must": ()}):
            return self._passages(body)
        leg, text = self._which(body["query"])
        if searched_code(body) is not None:
            return _answer([_hit(item) for item in candidates(dict.fromkeys(self.exact(text), 1.0))])
        with self._lock:
            self.asked.append((leg, text, time.monotonic()))
            self.bodies.append(body)
        # a leg reads some more than its candidates
        hits = [_hit(item) for item in candidates(self._legs[leg](text, body))[: body["size"] - TIES]]
        return _answer(hits, failed=self.failed_shards(leg, text))

    def _passages(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append(("passages", "", time.monotonic()))
        if (error := self.away()) is not None:
            raise error
        names = [name for name in body["query"]["bool"]["filter"][0]["ids"]["values"] if name not in self.deleted]
        hits = [
            {"_id": name, "_score": 0.0, "_source": {"document_id": name.split("/", maxsplit=1)[0], "text": name}}
            for name in names
        ]
        shards = {"total": 3, "failed": self.failed_shards("passages", "")}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": {"hits": hits}}

    def _which(self, query: dict[str, Any]) -> tuple[str, str]:
        if "knn" in query:
            vector = query["knn"]["embedding"]["vector"]
            return "dense", self.known[int(np.argmax(vector))]
        return "lexical", next(text for text in self.known if repr(text[:4096]) in str(query))

    def texts(self, leg: str) -> list[str]:
        """What that leg was asked for, in order."""
        return [text for which, text, _ in self.asked if which == leg]


def _hit(item: Candidate) -> dict[str, Any]:
    fields = {"passage_id": [item.id], "document_id": [item.document_id]}
    return {"_score": item.score, "fields": fields}


def _answer(hits: list[dict[str, Any]], total: int | None = None, *, failed: int = 0) -> dict[str, Any]:
    counted = {"value": len(hits) if total is None else total}
    return {
        "took": 1,
        "timed_out": False,
        "_shards": {"total": 3, "failed": failed},
        "hits": {"hits": hits, "total": counted},
    }


def canned_settings(**settings: Any) -> Settings:
    return load_settings(opensearch_url="http://127.0.0.1:1", **settings)


class Told:
    """A reranker that gives each passage the score that a function of query and passage id says (NaN: none).

    `failing` takes a query and says what is raised at it, if anything; `seen` holds the ids of the passages, by query.
    """

    reads_tokens = False

    def __init__(
        self,
        score: Callable[[str, str], float],
        *,
        name: str = "told",
        weight: float = 0.5,
        depth: int = 20,
        calibrated: bool = True,
    ) -> None:
        self.name, self.weight, self.depth, self.calibrated = name, weight, depth, calibrated
        self._score = score
        self.failing: Callable[[str], BraidError | None] = lambda query: None
        self.seen: dict[str, list[str]] = {}

    def encode_query(self, text: str) -> None:
        return

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        self.seen[query] = []
        return _Scoring(self, query)

    def score(self, query: str, names: Sequence[str]) -> npt.NDArray[np.float64]:
        if (error := self.failing(query)) is not None:
            raise error
        self.seen[query] += names
        return np.array([self._score(query, name) for name in names], np.float64)


class _Scoring:
    def __init__(self, owner: Told, query: str) -> None:
        self._owner, self._query = owner, query

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        return [len(subjects[start : start + 7]) for start in range(0, len(subjects), 7)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> npt.NDArray[np.float64]:
        return self._owner.score(self._query, [item.hit.id for item in subjects])

    def upper_bound(self, fused: float) -> float:
        return 1.0
