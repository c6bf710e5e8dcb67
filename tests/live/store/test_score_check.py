"""Scores of known passages on a real node: right ones are fine, wrong ones are told apart by their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from app.passage import Passage
from app.store.bulk import bulk_index
from app.store.client import READ_ALIAS, Cluster
from app.store.documents import refresh
from app.store.queries import LINEAR_PIPELINE
from app.store.score_check import SpaceType, check_scores, hybrid_fault, known_passage

SPACES: tuple[SpaceType, ...] = get_args(SpaceType)
INDEX = "braid-other"


def make_index(cluster: Cluster, space_type: str, vector: list[float], similarity: dict[str, Any]) -> None:
    """An index that is not Braid's, with one document."""
    method = {"name": "hnsw", "engine": "lucene", "space_type": space_type}
    properties = {
        "body": {"type": "text", "similarity": "own"},
        "place": {"type": "knn_vector", "dimension": len(vector), "method": method},
    }
    settings = {"index": {"knn": True, "similarity": {"own": similarity}}}
    cluster.request("PUT", f"/{INDEX}", body={"settings": settings, "mappings": {"properties": properties}})
    document = {"body": "The pump, the glycol pump.", "place": vector}
    cluster.request("PUT", f"/{INDEX}/_doc/1", params={"refresh": "true"}, body=document)


def test_scores_of_our_own_index_are_fine(store: Cluster, make_passage: Callable[..., Passage]) -> None:
    assert check_scores(store, READ_ALIAS, text_field="text", vector_field="embedding", space_type="l2") is None
    assert bulk_index(store, [make_passage("a"), make_passage("b")]).indexed == 2
    refresh(store)
    found = check_scores(store, READ_ALIAS, text_field="text", vector_field="embedding", space_type="innerproduct")
    assert found is not None
    assert (found.wrong, found.lexical.factor if found.lexical else None) == ((), 1.0)
    passage = known_passage(store, READ_ALIAS, "text", "embedding")
    assert passage is not None
    assert hybrid_fault(store, passage, "text", "embedding", LINEAR_PIPELINE) is None
    assert hybrid_fault(store, passage, "text", "embedding", None) == "delimiter scores"


@pytest.mark.parametrize("vector", [[0.6, 0.8], [3.0, 0.5]])
@pytest.mark.parametrize("real", SPACES)
def test_the_formula_of_a_wrong_score_is_named(cluster: Cluster, real: SpaceType, vector: list[float]) -> None:
    """Searched as one space type, and believed to be another."""
    make_index(cluster, real, vector, {"type": "BM25", "k1": 0.5})
    for believed in SPACES:
        found = check_scores(cluster, INDEX, text_field="body", vector_field="place", space_type=believed)
        assert found is not None
        assert found.lexical is not None
        assert (found.lexical.factor, found.lexical.k1) == (1.0, 0.5)
        if believed == real:
            assert found.wrong == ()
        else:
            assert {(item.way, item.formula) for item in found.wrong} == {("filtered", real), ("unfiltered", real)}
            assert INDEX in str(found)
            assert real in str(found)


def test_an_index_with_another_similarity_has_no_scale(cluster: Cluster) -> None:
    make_index(cluster, "l2", [0.1, 0.2], {"type": "LMDirichlet"})
    found = check_scores(cluster, INDEX, text_field="body", vector_field="place", space_type="l2")
    assert found is not None
    assert (found.wrong, found.lexical) == ((), None)
    nothing = check_scores(cluster, INDEX, text_field="missing", vector_field="place", space_type="l2")
    assert nothing is not None
    assert nothing.lexical is None
