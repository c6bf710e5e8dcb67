"""The fusion stage: ranks the legs' candidates with the requested, configured, tuned or learned weight."""

from __future__ import annotations

from dataclasses import replace

from app import telemetry
from app.calibration import calibration_for
from app.config import Settings
from app.degradation import Reason
from app.embedding.text_encoder import TextEncoder
from app.querytext import is_distinctive
from app.search import fusion
from app.search.fusion import FusedCandidate
from app.search.request import SearchRequest
from app.search.stages import Candidates, NativeFusion, Passages, Ranking, SearchCall
from app.search.trace import Trace
from app.search.weighting import Weight, learned_weight, model_for
from app.store import queries
from app.store.responses import Leg
from app.tuning import Normalization, WeightModel

_DISTINCTIVE_BONUS = 1.0
"""Bonus of a passage with a distinctive identifier: more than any fused score, so that it comes first."""
_OTHER_BONUS, _OTHER_MOST = 0.2, 5
"""Bonus for any other identifier, and the maximum number of passages that contain it."""

NATIVE_NORMALIZATIONS: tuple[Normalization, ...] = ("min_max", "l2")
"""Normalisations of pipelines on all versions, that of the pipeline `braid-hybrid-linear` first; z_score is new in
3.0."""


class FusionStage:
    """Fuses the candidates of searches. Thread-safe."""

    def __init__(self, settings: Settings, encoder: TextEncoder) -> None:
        """Create the stage; only the name of `encoder` is used.

        Raises:
            ConfigurationError: as `calibration_for`.
        """
        self._search = settings.search
        self._embedding_model = encoder.name
        self._calibration = calibration_for(settings.embedding, encoder.name)

    def fuse(self, found: Candidates, call: SearchCall, trace: Trace) -> Ranking:
        """Return all candidates in order; an uncalibrated model is named, since the vector leg is used with it."""
        if self._calibration is None and found.plan.way != "lexical":
            trace.degrade(
                "vector", Reason.UNCALIBRATED, f"the embedding model {self._embedding_model!r} has no calibration"
            )
        if found.plan.way in ("lexical", "dense"):
            return rank_one_leg(found)
        with trace.timed("hybrid_ms"):
            return self._native(found, call) if found.native is not None else self._legs(found, call, trace)

    def native_fusion(self, call: SearchCall) -> NativeFusion:
        """Return the pipeline of a native request: the cluster's own, or one in the body for what that has not."""
        asked, explain = call.request.fusion, call.request.explain
        if asked.method == "rrf":
            rrf = queries.rrf_pipeline(self._search.rrf_rank_constant)
            return NativeFusion(queries.with_explanation(rrf) if explain else queries.RRF_PIPELINE)
        weight, technique = self._fixed_weight(call), native_normalization(call.request)
        if weight.source in ("tuned", "default") and technique == NATIVE_NORMALIZATIONS[0]:
            weight = replace(weight, alpha=call.tuning.native_alpha)  # the best weight for the pipeline
        if not explain and weight.source != "request" and technique == NATIVE_NORMALIZATIONS[0]:
            return NativeFusion(queries.LINEAR_PIPELINE, weight)
        inline = queries.linear_pipeline(weight.alpha, technique)
        return NativeFusion(queries.with_explanation(inline) if explain else inline, weight)

    def is_native_linear(self, call: SearchCall) -> bool:
        """Return whether a search pipeline can weigh and normalise as the request asks.

        A weight that is predicted from what the legs find is no part of the native way, unless the request asks for it.
        """
        return native_normalization(call.request) in NATIVE_NORMALIZATIONS and not call.request.fusion.learned

    def _native(self, found: Candidates, call: SearchCall) -> Ranking:
        scale = call.lexical_factor
        hits = [hit if hit.lexical is None else replace(hit, lexical=scale * hit.lexical) for hit in found.native or ()]
        ranked = [
            FusedCandidate(hit.id, hit.document_id, hit.score, lexical=hit.lexical, dense=hit.dense) for hit in hits
        ]
        passages = Passages({hit.id: hit for hit in hits})
        return Ranking(found, ranked, ranked, found.native_weight, passages=passages)

    def _legs(self, found: Candidates, call: SearchCall, trace: Trace) -> Ranking:
        left = found.lexical.candidates if found.lexical else ()
        right = found.dense.candidates if found.dense else ()
        bonus, exact = exact_matches(found.lexical)
        asked = call.request.fusion
        if asked.method == "rrf":
            fused = fusion.fuse_rrf(left, right, self._search.rrf_rank_constant, bonus=bonus)
            return Ranking(found, fused, fused, exact=exact)
        weight = self._fixed_weight(call)
        model = self._model(call)
        if model is None and asked.learned:
            if call.features.learned_fusion:
                trace.degrade("fusion", Reason.NO_MODEL, "no weight model fits the embedding model and normalisation")
            else:
                trace.degrade("fusion", Reason.SWITCHED_OFF, "the flag learned_fusion is off, the weight is fixed")
        if model is not None:
            weight = learned_weight(model, weight, call.query, left, right)
        telemetry.FUSION_WEIGHTS.labels(weight.source).inc()
        telemetry.FUSION_DENSE_SHARE.observe(weight.alpha)
        technique = asked.normalization or call.tuning.normalization
        fused = fusion.fuse_linear(left, right, weight.alpha, normalization=technique, bonus=bonus)
        return Ranking(found, fused, fused, weight, exact)

    def _fixed_weight(self, call: SearchCall) -> Weight:
        asked = call.request.fusion.alpha
        if asked is not None:
            return Weight(asked, "request", "the request names it")
        if self._search.alpha is not None:
            return Weight(self._search.alpha, "setting", "BRAID_ALPHA")
        if call.tuning.version:
            return Weight(call.tuning.alpha, "tuned", f"tuning {call.tuning.version}")
        return Weight(call.tuning.alpha, "default", "nothing has been tuned")

    def _model(self, call: SearchCall) -> WeightModel | None:
        """Return the model that predicts this query's weight; None if a fixed one was requested or set, or none
        matches.
        """
        asked = call.request.fusion
        fixed = asked.alpha is not None or self._search.alpha is not None
        wanted = asked.learned if asked.learned is not None else self._search.learned_fusion and not fixed
        if (
            not call.features.learned_fusion
            or not wanted
            or asked.method == "rrf"
            or asked.normalization not in (None, call.tuning.normalization)
        ):
            return None
        return model_for(call.tuning, self._embedding_model, self._calibration)


def native_normalization(request: SearchRequest) -> Normalization:
    """Return the normalisation of a native request; a tuned one is that of the legs."""
    return request.fusion.normalization or NATIVE_NORMALIZATIONS[0]


def rank_one_leg(found: Candidates) -> Ranking:
    """Return the only leg's candidates in order, exact matches of identifiers first."""
    leg = found.lexical or found.dense
    assert leg is not None  # noqa: S101 - exactly one is None
    bonus, exact = exact_matches(found.lexical)
    ranked = fusion.rank_alone(leg.candidates, "lexical" if found.lexical else "dense", bonus)
    return Ranking(found, ranked, ranked, exact=exact)


def exact_matches(lexical: Leg | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return each passage's bonus for identifiers that it contains verbatim, and the identifiers that counted."""
    bonus: dict[str, float] = {}
    counted_codes = []
    for code, (count, ids) in (lexical.exact if lexical else {}).items():
        distinctive = is_distinctive(code)
        if 0 < count <= (queries.MOST_EXACT if distinctive else _OTHER_MOST):
            counted_codes.append(code)
            for key in ids:
                bonus[key] = bonus.get(key, 0.0) + (_DISTINCTIVE_BONUS if distinctive else _OTHER_BONUS)
    return bonus, tuple(counted_codes)
