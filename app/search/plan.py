"""The router: which way a search takes, decided here from flags, mode, the query's shape and the time that is left.

=====================================  ==================================================================
case                                   way
=====================================  ==================================================================
the flag of a leg is off               mode hybrid: the other leg alone, stated in `degraded`; that mode,
                                       or both flags off: an error (501) that names the flag
mode lexical, dense                    that leg alone
a hybrid query that is nothing but     the lexical leg alone, without reranking, where it finds them as
identifiers                            they are written; else both legs
flag early_exit on, and the first of   the lexical leg alone, without reranking
the lexical leg leads by a margin
BRAID_HYBRID_WAY=native                one native `hybrid` request through the search pipeline, where it
                                       would be exact: one shard, min-max with a fixed weight (or RRF), no
                                       identifier, nothing shaped or explained
too little time left for the query's   the lexical leg alone, stated
vector and its leg
everything else                        two legs side by side, fused in the service, then reranked
=====================================  ==================================================================

Two legs are the default: they are faster (OpenSearch runs the sub-queries of `hybrid` one after the other), the order
does not move with the number of shards, each query can have its weight, a leg without signal is kept small, and when
one leg fails the other still answers (benchmarks/legs.md, docs/decisions.md). A request that says how to fuse, or that
asks for reranking by its own word, gets both legs, whatever its query looks like.

The time budget (`timeout_ms`) is shared out as the request goes along; each share is one of what is *left*:

===========  =========================================================================================
stage        gets
===========  =========================================================================================
answer       of `POST /v1/answer`: the search gets half of the budget, the language model what is left
waiting      for a free slot: at most half (`gateway.admission`)
encode       cannot be interrupted; skipped if it and the vector leg have lately taken more than is left
legs         `LEGS` of what is left when they begin; OpenSearch itself stops at `STOP` of that, and cancels
rerank       `RERANK` of what is left, and no more than BRAID_RERANK_BUDGET_MS
page         everything that is left
===========  =========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import SwitchedOff
from app.features import ALL_ON, Features
from app.querytext import QueryText, is_distinctive
from app.search.request import FusionRequest, SearchRequest

Way = Literal["lexical", "dense", "native", "legs"]
Exit = Literal["never", "code", "lead"]

ANSWER_SEARCH = 0.5
"""The share of an answer's budget that its search gets."""
LEGS = 0.8
STOP = 0.9
RERANK = 0.8
EXIT_WAIT = 0.4
"""Of the legs' time, at most, is spent on waiting for what may make the other leg needless."""
EARLY_EXIT_MARGIN = 0.5
"""The lead of the lexical leg's best passage over its second, as a share of its score (benchmarks/early_exit.md)."""


_PUNCTUATION = "\"'`“”„«».,;:!?()[]{}<>"


@dataclass(frozen=True, slots=True)
class Plan:
    """The way a request takes, and why, in words that `explain` shows.

    `exit`: what of the lexical leg makes the other one needless. `stated`: what the caller has to be told, as (stage,
    reason) pairs.
    """

    way: Way
    reason: str
    exit: Exit = "never"
    stated: tuple[tuple[str, str], ...] = ()

    @property
    def early(self) -> bool:
        """Whether a hybrid search ended with the lexical leg because that said enough."""
        return self.way == "lexical" and self.exit != "never"


def choose(
    request: SearchRequest,
    *,
    wanted: Literal["legs", "native"],
    shards: int,
    native_rrf_across_shards: bool,
    native_linear: bool,
    exact: bool,
    shaped: bool,
    features: Features = ALL_ON,
    query: QueryText | None = None,
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
        features: what is switched on for this request.
        query: taken apart; None: nothing is known of its shape.

    Raises:
        SwitchedOff: the leg that the mode names is off, or both are.
    """
    if request.mode != "hybrid":
        _check(request.mode, features)
        return Plan(request.mode, f"mode {request.mode}")
    if not (features.lexical and features.vector):
        return _one_leg(features)
    by_code, by_lead = _may_exit(request) and is_code(query), _may_exit(request) and features.early_exit
    if by_code:
        return Plan("legs", "two legs side by side: nothing was found as it is written", "code")
    if by_lead:
        return Plan("legs", "two legs side by side: no passage leads the lexical leg by enough", "lead")
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


def after_lexical(chosen: Plan, query: QueryText, scores: Sequence[float], found: Sequence[str]) -> Plan | None:
    """The plan that ends with the lexical leg, where what it found says enough; None: go on.

    Args:
        chosen: the plan so far.
        query: taken apart.
        scores: of the lexical leg, best first.
        found: the query's identifiers that few passages hold as they are written.
    """
    if chosen.exit == "code" and set(query.codes) <= set(found):
        return Plan("lexical", f"nothing but what was found as it is written: {', '.join(query.codes)}", "code")
    if chosen.exit == "lead" and leads(scores, EARLY_EXIT_MARGIN):
        return Plan("lexical", f"early exit: the best passage leads by {EARLY_EXIT_MARGIN:.0%} of its score", "lead")
    return None


def leads(scores: Sequence[float], margin: float) -> bool:
    """Whether the best of `scores` (best first, at least two) leads the second by `margin` of itself."""
    return len(scores) > 1 and scores[0] > 0 and (scores[0] - scores[1]) / scores[0] >= margin


def is_code(query: QueryText | None) -> bool:
    """Whether a query is nothing but identifiers that can only mean one thing each, quoted or not."""
    if query is None or not query.codes or not all(map(is_distinctive, query.codes)):
        return False
    words = (word.strip(_PUNCTUATION).lower() for word in re.split(r"[\s,;]+", query.text))
    return all(word in query.codes for word in words if word)


def _may_exit(request: SearchRequest) -> bool:
    return request.fusion == FusionRequest() and not request.rerank


def _check(mode: Literal["lexical", "dense"], features: Features) -> None:
    flag = "lexical" if mode == "lexical" else "vector"
    if not getattr(features, flag):
        raise SwitchedOff(f"mode {mode!r} can't be had: the feature flag {flag!r} is off; ask for another mode")


def _one_leg(features: Features) -> Plan:
    if features.lexical:
        told = ("vector", "switched-off: the flag vector is off, only the lexical leg ran")
        return Plan("lexical", "the flag vector is off", stated=(told,))
    if features.vector:
        told = ("lexical", "switched-off: the flag lexical is off, only the vector leg ran")
        return Plan("dense", "the flag lexical is off", stated=(told,))
    raise SwitchedOff("nothing can be searched: the feature flags 'lexical' and 'vector' are both off")
