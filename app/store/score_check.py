"""Checks of scores: what a known passage of an index gets, against what the formulas give.

An upgrade of OpenSearch changes scores without an error. Exact vector searches of FAISS indexes made on 2.17 to 2.19
use L2 on 3.x, whatever the field says (https://github.com/opensearch-project/k-NN/pull/3537), those of fields with a
trained model always. BM25 lost its factor k1 + 1 in 3.0. A `hybrid` query whose pipeline did not run answers with
delimiters and each passage twice. None of this needs a template of Braid: any index can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.store.client import Cluster

TEXT, VECTOR = "text", "embedding"
"""Fields of Braid's own indexes; the similarity of `text` is that of the lexical leg."""

SpaceType = Literal["innerproduct", "l2", "cosinesimil"]

_WORD = re.compile(r"[^\W\d_]+")
_NEAREST = 10
"""Passages among which the known one must be found by an unfiltered vector search: it is the best, but graphs err."""
_CLOSE = 0.1
"""Largest relative difference of a score from its formula: quantised vectors are not exact."""
_TIMEOUT_S = 5.0
_BM25 = "computed as boost * idf * tf"
"""Part of Lucene's explanation of a BM25 score; followed by its factors."""


@dataclass(frozen=True, slots=True)
class KnownPassage:
    """A passage of an index: a word of its text ("" if `_source` has none), its vector, of shape (dimension,)."""

    index: str
    id: str
    word: str
    vector: npt.NDArray[np.float64]

    @classmethod
    def of(cls, index: str, passage_id: str, text: object, vector: Sequence[float]) -> KnownPassage:
        """Return a passage with the longest word of its text: one term of the index, hardly a stop word."""
        word = max(_WORD.findall(text) if isinstance(text, str) else (), key=len, default="")
        return cls(index, passage_id, word, np.asarray(vector, np.float64))


@dataclass(frozen=True, slots=True)
class Bm25Scale:
    """Measured factor of BM25 scores: k1 + 1 until 2.x and with `LegacyBM25`, 1 since 3.0."""

    boost: float
    k1: float

    @property
    def factor(self) -> float:
        """Factor that brings scores to the scale with k1 + 1."""
        return round((self.k1 + 1) / self.boost, 4)  # scores are float32


@dataclass(frozen=True, slots=True)
class DenseScore:
    """Score of a known passage in a vector search: with a filter (exact), or without one (by the graph, if any)."""

    way: Literal["filtered", "unfiltered"]
    score: float
    expected: float
    formula: SpaceType | None
    """The space type whose formula gives the score; None: no known one."""

    @property
    def fine(self) -> bool:
        return abs(self.score - self.expected) <= _CLOSE * self.expected


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Scores of one index. `lexical` is None if the text field has no BM25 score to measure."""

    passage: KnownPassage
    space_type: SpaceType
    lexical: Bm25Scale | None
    dense: tuple[DenseScore, ...]

    @property
    def wrong(self) -> tuple[DenseScore, ...]:
        return tuple(item for item in self.dense if not item.fine)

    def __str__(self) -> str:
        """Describe the wrong scores."""
        ways = "; ".join(
            f"{item.way} vector searches give a known passage {item.score:.3g} in place of {item.expected:.3g}"
            + (f", its score by {item.formula}" if item.formula else "")
            for item in self.wrong
        )
        return f"index {self.passage.index} ({self.space_type}): {ways or 'scores are fine'}"


def check_scores(
    cluster: Cluster, index: str, *, text_field: str, vector_field: str, space_type: SpaceType
) -> ScoreReport | None:
    """Check the scores of an index: three small requests, four if the vectors' are wrong.

    Args:
        text_field: a field with BM25, and with its text in `_source`; else its scale is not measured.
        space_type: that of the vector field.

    Returns:
        None if no passage has a vector.

    Raises:
        StoreError.
    """
    passage = known_passage(cluster, index, text_field, vector_field)
    if passage is None:
        return None
    dense = dense_score(cluster, passage, vector_field, space_type, "filtered")
    wrong = dense is not None and not dense.fine
    ways = [dense, dense_score(cluster, passage, vector_field, space_type, "unfiltered") if wrong else None]
    return ScoreReport(
        passage,
        space_type,
        bm25_scale(cluster, passage, text_field),
        tuple(item for item in ways if item is not None),
    )


def lexical_factor(cluster: Cluster) -> float:
    """Return `Bm25Scale.factor` of the passages that searches see; 1 if there are none. Raises StoreError."""
    passage = known_passage(cluster, cluster.read_alias, TEXT, VECTOR)
    scale = bm25_scale(cluster, passage, TEXT) if passage is not None else None
    return scale.factor if scale is not None else 1.0


def known_passage(cluster: Cluster, index: str, text_field: str, vector_field: str) -> KnownPassage | None:
    """Return some passage of the index that has a vector in `_source`; None if there is none. Raises StoreError."""
    body = {"query": {"exists": {"field": vector_field}}, "_source": [text_field, vector_field]}
    for hit in _hits(cluster, index, body):
        source = hit.get("_source", {})
        vector, text = source.get(vector_field), source.get(text_field)
        if isinstance(vector, list):
            return KnownPassage.of(hit["_index"], hit["_id"], text, vector)
    return None


def bm25_scale(cluster: Cluster, passage: KnownPassage, text_field: str) -> Bm25Scale | None:
    """Measure the scale of BM25 by OpenSearch's explanation of a word's score; None if there is none.

    Raises:
        StoreError.
    """
    if not passage.word:
        return None
    match = {"match": {text_field: {"query": passage.word}}}
    body = {"query": {"bool": {"must": [match], "filter": [_only(passage)]}}, "explain": True, "_source": False}
    for hit in _hits(cluster, passage.index, body):
        for node in _nodes(hit["_explanation"]):
            if _BM25 in node["description"]:
                factors = {item["description"].partition(",")[0]: item for item in node["details"]}
                k1 = next((item["value"] for item in _nodes(factors["tf"]) if item["description"][:3] == "k1,"), None)
                unscaled = factors["idf"]["value"] * factors["tf"]["value"]
                if k1 is not None and unscaled > 0:
                    return Bm25Scale(node["value"] / unscaled, float(k1))
    return None


def dense_score(
    cluster: Cluster,
    passage: KnownPassage,
    vector_field: str,
    space_type: SpaceType,
    way: Literal["filtered", "unfiltered"],
) -> DenseScore | None:
    """Return the passage's score for half its own vector, which tells the formulas apart; None if it was not found.

    Raises:
        StoreError.
    """
    whole = bool(np.equal(np.mod(passage.vector, 1), 0).all())  # vectors of bytes can't be halved
    query = passage.vector if whole else passage.vector / 2
    knn: dict[str, Any] = {"vector": (query.astype(int) if whole else query).tolist(), "k": _NEAREST}
    if way == "filtered":
        knn["filter"] = _only(passage)
    body = {"query": {"knn": {vector_field: knn}}, "size": _NEAREST, "_source": False}
    hits = _hits(cluster, passage.index, body)
    score = next((float(hit["_score"]) for hit in hits if hit["_id"] == passage.id), None)
    if score is None:
        return None
    scores: dict[SpaceType, float] = {name: formula(query, passage.vector) for name, formula in _FORMULAS.items()}
    nearest = min(scores, key=lambda name: (abs(scores[name] - score), name != space_type))
    close = abs(scores[nearest] - score) <= _CLOSE * scores[nearest]
    return DenseScore(way, score, scores[space_type], nearest if close else None)


def hybrid_fault(
    cluster: Cluster, passage: KnownPassage, text_field: str, vector_field: str, pipeline: str | None
) -> Literal["delimiter scores", "doubled hits"] | None:
    """Return what is wrong with a `hybrid` query for the known passage.

    Args:
        pipeline: the search pipeline; None: the index's default, if it has one.

    Raises:
        StoreError: among others if the cluster knows no `hybrid`, or not the pipeline.
    """
    match = {"match": {text_field: {"query": passage.word}}}
    knn = {"vector": passage.vector.tolist(), "k": _NEAREST, "filter": _only(passage)}
    queries = [{"bool": {"must": [match], "filter": [_only(passage)]}}, {"knn": {vector_field: knn}}]
    body = {"query": {"hybrid": {"queries": queries}}, "size": _NEAREST, "_source": False}
    hits = _hits(cluster, passage.index, body, {"search_pipeline": pipeline} if pipeline is not None else {})
    if any(float(hit["_score"] or 0) < 0 for hit in hits):
        return "delimiter scores"
    return "doubled hits" if len(hits) > len({hit["_id"] for hit in hits}) else None


def _inner_product(query: npt.NDArray[np.float64], vector: npt.NDArray[np.float64]) -> float:
    found = float(query @ vector)
    return 1 + found if found >= 0 else 1 / (1 - found)


def _l2(query: npt.NDArray[np.float64], vector: npt.NDArray[np.float64]) -> float:
    return 1 / (1 + float(((query - vector) ** 2).sum()))


def _cosine(query: npt.NDArray[np.float64], vector: npt.NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(query) * np.linalg.norm(vector))
    return (1 + float(query @ vector) / norms) / 2 if norms else 0.5


_FORMULAS: Mapping[SpaceType, Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]] = {
    "innerproduct": _inner_product,
    "l2": _l2,
    "cosinesimil": _cosine,
}
"""k-NN's scores by space type."""


def _only(passage: KnownPassage) -> dict[str, Any]:
    return {"ids": {"values": [passage.id]}}


def _hits(cluster: Cluster, index: str, body: dict[str, Any], params: Mapping[str, str] | None = None) -> list[Any]:
    whole = {"size": 1, "track_total_hits": False, **body}
    path = f"/{index}/_search"
    found: list[Any] = cluster.request("POST", path, params=dict(params or {}), body=whole, timeout_s=_TIMEOUT_S)[
        "hits"
    ]["hits"]
    return found


def _nodes(explanation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of an explanation."""
    yield explanation
    for item in explanation.get("details", ()):
        yield from _nodes(item)
