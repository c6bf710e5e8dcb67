"""The router: chooses the way of a search from flags, mode, the query's shape and the remaining time.

=====================================  ==================================================================
case                                   way
=====================================  ==================================================================
the flag of a leg is off               mode hybrid: the other leg alone, stated in `degraded`; that mode,
                                       or both flags off: an error (501) that names the flag
mode lexical, dense                    that leg alone
a hybrid query that is nothing but     the lexical leg alone, without reranking, where it finds them as
identifiers                            they are written; else both legs
BRAID_HYBRID_WAY=native                one native `hybrid` request through a search pipeline, where one gives
                                       what is asked for: no identifier, no weight by what the legs find, no
                                       z_score, and no RRF over shards before 3.5
flag early_exit on, and the first of   the lexical leg alone, without reranking
the lexical leg leads by a margin
too little time left for the query's   the lexical leg alone, stated
vector and its leg
everything else                        two legs side by side, fused in the service, then reranked
=====================================  ==================================================================

Two legs are the default: they are faster (OpenSearch runs the sub-queries of `hybrid` one after the other), the ranking
does not depend on the number of shards, each query can have its own weight, a leg without signal stays small, and if
one leg fails the other still answers (benchmarks/legs.md, docs/decisions.md). A request that says how to fuse, or
explicitly asks for reranking, gets both legs, whatever its query looks like.

The time budget (`timeout_ms`) is divided as the request proceeds; each share is a share of the *remaining* time:

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

from app.degradation import Reason
from app.errors import FeatureDisabled
from app.features import ALL_ON, Features
from app.querytext import QueryText, is_distinctive, narrow
from app.search.request import FusionRequest, SearchRequest

Way = Literal["lexical", "dense", "native", "legs"]
Exit = Literal["never", "code", "lead"]

ANSWER_SEARCH = 0.5
"""Share of an answer's budget for its search."""
LEGS = 0.8
STOP = 0.9
RERANK = 0.8
EXIT_WAIT = 0.4
"""Maximum share of the legs' time spent waiting for a result that may make the other leg unnecessary."""
EARLY_EXIT_MARGIN = 0.5
"""Lead of the lexical leg's best passage over its second, as a share of its score (benchmarks/early_exit.md)."""


_PUNCTUATION = "\"'`“”„«».,;:!?()[]{}<>"


@dataclass(frozen=True, slots=True)
class Plan:
    """The way of a request, and its reason in words that `explain` shows.

    `exit`: the lexical result that makes the other leg unnecessary. `stated`: degradations to report, as (stage,
    reason) pairs.
    """

    way: Way
    reason: str
    exit: Exit = "never"
    stated: tuple[tuple[str, str], ...] = ()

    @property
    def early(self) -> bool:
        """Return whether a hybrid search ended with a sufficient lexical leg."""
        return self.way == "lexical" and self.exit != "never"


def choose(
    request: SearchRequest,
    *,
    wanted: Literal["legs", "native"],
    shards: int,
    native_rrf_across_shards: bool,
    native_linear: bool,
    exact: bool,
    features: Features = ALL_ON,
    query: QueryText | None = None,
) -> Plan:
    """Choose the way of a search.

    Args:
        shards: primary shards behind the read alias.
        native_rrf_across_shards: whether the cluster's RRF ranks the candidates of all shards together.
        native_linear: whether a search pipeline provides weight and normalisation.
        exact: whether the query names identifiers or quotes, which only the service can put first.
        query: the analysed query; None: its shape is unknown.

    Raises:
        FeatureDisabled: the leg of the mode is disabled, or both are.
    """
    if request.mode != "hybrid":
        _check(request.mode, features)
        return Plan(request.mode, f"mode {request.mode}")
    if not (features.lexical and features.vector):
        return _one_leg(features)
    by_code, by_lead = _may_exit(request) and is_code(query), _may_exit(request) and features.early_exit
    if by_code:
        return Plan("legs", "two legs side by side: nothing was found as it is written", "code")
    if wanted == "legs":
        if by_lead:
            return Plan("legs", "two legs side by side: no passage leads the lexical leg by enough", "lead")
        return Plan("legs", "two legs side by side")
    if exact:
        return Plan("legs", "identifiers and quoted phrases are put first by the service")
    if request.fusion.method == "rrf" and shards > 1 and not native_rrf_across_shards:
        return Plan("legs", f"native RRF ranks per shard on this version, and there are {shards} shards")
    if request.fusion.method == "linear" and not native_linear:
        return Plan("legs", "the weight depends on what the legs find, or the normalisation is not native")
    return Plan("native", "one native hybrid request")


def after_lexical(chosen: Plan, query: QueryText, scores: Sequence[float], found: Sequence[str]) -> Plan | None:
    """Return the plan that ends with the lexical leg, if its result suffices; None: continue.

    Args:
        scores: scores of the lexical leg, best first.
        found: the query's identifiers that few passages contain verbatim.
    """
    if chosen.exit == "code" and set(query.codes) <= set(found):
        return Plan("lexical", f"nothing but what was found as it is written: {', '.join(query.codes)}", "code")
    if chosen.exit == "lead" and leads(scores, EARLY_EXIT_MARGIN):
        return Plan("lexical", f"early exit: the best passage leads by {EARLY_EXIT_MARGIN:.0%} of its score", "lead")
    return None


def leads(scores: Sequence[float], margin: float) -> bool:
    """Return whether the best of `scores` (best first, at least two) leads the second by `margin` of itself."""
    return len(scores) > 1 and scores[0] > 0 and (scores[0] - scores[1]) / scores[0] >= margin


def is_code(query: QueryText | None) -> bool:
    """Return whether a query consists of distinctive identifiers only, quoted or not."""
    if query is None or not query.codes or not all(map(is_distinctive, query.codes)):
        return False
    words = (word.strip(_PUNCTUATION).lower() for word in re.split(r"[\s,;]+", narrow(query.text)))
    return all(word in query.codes for word in words if word)


def _may_exit(request: SearchRequest) -> bool:
    return request.fusion == FusionRequest() and not request.rerank


def _check(mode: Literal["lexical", "dense"], features: Features) -> None:
    flag = "lexical" if mode == "lexical" else "vector"
    if not getattr(features, flag):
        raise FeatureDisabled(f"mode {mode!r} is disabled by the feature flag {flag!r}: use another mode")


def _one_leg(features: Features) -> Plan:
    if features.lexical:
        told = ("vector", Reason.SWITCHED_OFF.with_detail("the flag vector is off, only the lexical leg ran"))
        return Plan("lexical", "the flag vector is off", stated=(told,))
    if features.vector:
        told = ("lexical", Reason.SWITCHED_OFF.with_detail("the flag lexical is off, only the vector leg ran"))
        return Plan("dense", "the flag lexical is off", stated=(told,))
    raise FeatureDisabled("nothing can be searched: the feature flags 'lexical' and 'vector' are both off")
