"""How a hybrid request is sent to OpenSearch: the written-down rule.

========================  =============================================================================
case                      way
========================  =============================================================================
mode lexical, dense       that leg alone
BRAID_HYBRID_WAY=native   one native `hybrid` request through the search pipeline, where it would be exact:
                          one shard, min-max with a fixed weight (or RRF), no identifier, nothing shaped or
                          explained
everything else           two legs side by side, fused in the service
========================  =============================================================================

Two legs are the default: they are faster (OpenSearch runs the sub-queries of `hybrid` one after the other), the order
does not move with the number of shards, each query can have its weight, a leg without signal is kept small, and when
one leg fails the other still answers (benchmarks/legs.md, docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.search.request import SearchRequest

Way = Literal["lexical", "dense", "native", "legs"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The way a request takes, and why, in words that `explain` shows."""

    way: Way
    reason: str


def choose(
    request: SearchRequest,
    *,
    wanted: Literal["legs", "native"],
    shards: int,
    native_rrf_across_shards: bool,
    native_linear: bool,
    exact: bool,
    shaped: bool,
) -> Plan:
    """Pick the way.

    Args:
        request: as asked.
        wanted: the setting.
        shards: primary shards behind the read alias.
        native_rrf_across_shards: whether the cluster ranks over all shards.
        native_linear: whether weight and normalisation are such that a search pipeline gives them.
        exact: whether the query names identifiers or quotes, which only the service can put first.
        shaped: whether the page is made from all candidates, not from the best of them alone.
    """
    if request.mode != "hybrid":
        return Plan(request.mode, f"mode {request.mode}")
    if wanted == "legs":
        return Plan("legs", "two legs side by side")
    if request.explain:
        return Plan("legs", "explain shows the scores of each leg")
    if exact:
        return Plan("legs", "identifiers and quoted phrases are put first by the service")
    if shaped:
        return Plan("legs", "what is shown is chosen among all candidates")
    if request.fusion.method == "rrf":
        if shards > 1 and not native_rrf_across_shards:
            return Plan("legs", f"native RRF ranks per shard on this version, and there are {shards} shards")
        return Plan("native", "one native hybrid request")
    if shards > 1:
        return Plan("legs", f"native min-max takes the candidates of each of {shards} shards")
    if not native_linear:
        return Plan("legs", "the weight depends on what the legs find, or the normalisation is not native")
    return Plan("native", "one native hybrid request")
