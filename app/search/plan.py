"""How a request is sent to OpenSearch: the written-down rule of when one native hybrid request does, and when not.

========================  =============================================================================
case                      way
========================  =============================================================================
mode lexical, dense       that leg alone
explain                   two legs side by side: the native answer hides the legs' scores (one shard: same order)
RRF, more than one shard  before OpenSearch 3.5 two legs: the native processor ranks within each shard
linear, several shards    two legs: native min-max runs over shards x candidates, so its order moves with the shards
everything else           one native `hybrid` request
========================  =============================================================================
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


def choose(request: SearchRequest, *, shards: int, native_rrf_across_shards: bool) -> Plan:
    """Pick the way. `shards` counts the primary shards behind the read alias."""
    if request.mode != "hybrid":
        return Plan(request.mode, f"mode {request.mode}")
    if request.explain:
        return Plan("legs", "explain shows the scores of each leg")
    if shards > 1 and request.fusion.method == "rrf" and not native_rrf_across_shards:
        return Plan("legs", f"native RRF ranks per shard on this version, and there are {shards} shards")
    if shards > 1 and request.fusion.method == "linear":
        return Plan("legs", f"native min-max takes the candidates of each of {shards} shards")
    return Plan("native", "one native hybrid request")
