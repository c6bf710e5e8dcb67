"""Training of a weight model for collections that it has not seen: several judged sets, and the same queries in words
of their own.

`braid tune` trains one for its own collection, starting from this (`app.evaluation.learning`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.evaluation.collect import QueryLegs
from app.evaluation.learning import Examples, fit, join
from app.evaluation.objective import Objective, examples
from app.evaluation.ranking import normalize_all
from app.querytext import ENGLISH_STOP_WORDS
from app.search.weighting import features
from app.store.client import Cluster
from app.tuning import WeightModel

PENALTY = 0.001
"""Chosen by leaving one collection out (benchmarks/fusion.md)."""
MISMATCH_SHARE, MISMATCH_WEIGHT = 0.25, 0.5
"""Share of a query's words that are left out, rarest first, and the weight of such a query in training."""
_LEAST_WORDS = 3


def without_rarest_words(cluster: Cluster, queries: Mapping[str, str]) -> dict[str, str]:
    """Return the queries without their rarest words, for those with three words or more: what the lexical leg is left
    with where people ask in words of their own. Raises StoreError.
    """
    found = {}
    for query, text in queries.items():
        words = {word.lower() for word in re.findall(r"\w+", text)} - ENGLISH_STOP_WORDS
        if len(words) < _LEAST_WORDS:
            continue
        counts = {word: {"match": {"content": word}} for word in sorted(words)[:200]}
        body = {"size": 0, "aggs": {"words": {"filters": {"filters": counts}}}}
        answer = cluster.request("POST", f"/{cluster.read_alias}/_search", body=body)
        known = {word: item["doc_count"] for word, item in answer["aggregations"]["words"]["buckets"].items()}
        rarest = sorted((word for word in known if known[word]), key=lambda word: (known[word], word))
        dropped = set(rarest[: max(1, int(MISMATCH_SHARE * len(words)))])
        shorter = re.sub(r"\w+", lambda word: "" if word[0].lower() in dropped else word[0], text)  # noqa: B023
        if shorter.strip():
            found[query] = shorter
    return found


def examples_of(qrels: Mapping[str, Mapping[str, int]], legs: Mapping[str, QueryLegs]) -> Examples:
    """Return features and NDCG@10 curves of the queries that have legs."""
    objective = Objective({query: qrels[query] for query in legs}, "NDCG@10")
    values = {query: features(item.query, item.lexical, item.dense) for query, item in legs.items()}
    return examples(values, objective, objective.curves(normalize_all(legs, "min_max")))


def train(
    data: Sequence[Examples], shorter: Sequence[Examples], *, embedding_model: str, about: dict[str, Any] | None = None
) -> WeightModel:
    """Return the model of several collections, which weigh the same.

    Args:
        shorter: their queries without the rarest words, at half the weight.
        embedding_model: name of the model in any precision.
    """
    parts = [join(data)]
    if shorter:
        more = join(shorter)
        parts.append(Examples(more.features, more.curves, more.weights * MISMATCH_WEIGHT))
    whole = Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.curves for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )
    return fit(whole, embedding_model=embedding_model, normalization="min_max", penalty=PENALTY, about=about)
