"""Warnings of the watch of the cluster: what no test node can be brought to, such as nodes of two versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.serving.cluster_watch import created_version, presumed_factor, warnings_of
from app.store.capabilities import Capabilities, Node
from app.store.score_check import Bm25Scale, DenseScore, KnownPassage, ScoreReport
from app.store.templates import LiveIndexes

ONE = Capabilities((Node("a", (2, 19, 1), frozenset()),), faiss_native=True)
FINE = DenseScore("filtered", 1.5, 1.5, "innerproduct")
L2 = DenseScore("filtered", 0.8, 1.5, "l2")


def report(index: str, score: DenseScore = FINE, boost: float = 2.2) -> ScoreReport:
    passage = KnownPassage(index, "p", "pump", np.ones(2))
    return ScoreReport(passage, "innerproduct", Bm25Scale(boost, 1.2), (score,))


def live(embedding: dict[str, str], *names: str) -> LiveIndexes:
    item = {
        "settings": {"index.version.created": "136407927"},
        "mappings": {"properties": {"embedding": embedding}},
        "aliases": {"braid-passages": {}},
    }
    return LiveIndexes(dict.fromkeys(names, item))


def test_a_cluster_of_one_version_with_right_scores_gives_none() -> None:
    assert list(warnings_of(ONE, live({}, "a", "b"), [report("a"), report("b")])) == []


def test_nodes_of_several_versions_are_named() -> None:
    both = replace(ONE, nodes=(*ONE.nodes, Node("b", (3, 6, 0), frozenset())))
    (warning,) = warnings_of(both, live({}, "a"), [report("a")])
    assert "2.19.1, 3.6.0" in warning


def test_a_trained_model_needs_another_variant() -> None:
    (warning,) = warnings_of(ONE, live({}, "a"), [report("a", L2)])
    assert "BRAID_VECTOR_VARIANT" not in warning
    (warning,) = warnings_of(ONE, live({"model_id": "braid-ivfpq"}, "a"), [report("a", L2)])
    assert warning.startswith("upgraded index: reindex")
    assert "BRAID_VECTOR_VARIANT" in warning


def test_indexes_of_different_similarities_are_named() -> None:
    (warning,) = warnings_of(ONE, live({}, "a", "b"), [report("a"), report("b", boost=1.0)])
    assert "a, b" in warning


def test_the_scale_of_an_index_without_passages_is_known_by_its_version_and_similarity() -> None:
    three = replace(ONE, nodes=(Node("a", (3, 6, 0), frozenset()),))
    assert presumed_factor(ONE, live({}, "a")) == 1.0
    assert presumed_factor(three, LiveIndexes({})) == pytest.approx(2.2)
    legacy = live({}, "a")
    legacy.indexes["a"]["settings"] |= {"index.similarity.braid_bm25.k1": "0.9"}
    assert presumed_factor(three, legacy) == pytest.approx(1.9)
    legacy.indexes["a"]["settings"] |= {"index.similarity.braid_bm25.type": "LegacyBM25"}
    assert presumed_factor(three, legacy) == 1.0


@pytest.mark.parametrize(
    ("identifier", "version"),
    [("136407927", "2.19.1"), ("137277827", "3.6.0"), ("", "of an unknown version")],
)
def test_the_version_of_an_index_is_read_from_its_setting(identifier: str, version: str) -> None:
    assert created_version(identifier) == version
