"""Learned fusion weight: a query's dense share, predicted from the query and the results of both legs.

A logistic model over few features (`FEATURES`): agreement of the legs, lead of each leg's best results, share of the
query in the best lexical match, question words, identifiers. Spread and entropy of scores are those of query
performance prediction (Shtok et al., TOIS 2012). The query alone predicts next to nothing (benchmarks/fusion.md), so
the weight is chosen after both legs have answered, which costs no further request.

If the model is unsure - its coefficients disagree between bootstrap samples, or the query differs from its training
data - the fixed weight is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.calibration import Calibration, split_name
from app.passage import Candidate
from app.querytext import QueryText
from app.search.fusion import min_max
from app.tuning import Tuning, WeightModel

Vector = npt.NDArray[np.float64]

FEATURES = (
    "words",
    "question",
    "codes",
    "quoted",
    "lexical_per_word",
    "lexical_gap10",
    "lexical_spread",
    "lexical_entropy",
    "dense_top",
    "dense_gap10",
    "dense_spread",
    "dense_entropy",
    "overlap10",
    "overlap50",
    "lexical_best_in_dense",
    "dense_best_in_lexical",
    "correlation",
)
_CLIP = 3.0
"""Standard deviations at which a feature is cut, so that a single outlier does not decide."""
_STRANGE = 1.75
"""Root mean square of the standardised features above which a query counts as unlike the training data."""
_UNSURE = 0.75
"""Standard deviation of the logit above which the coefficients disagree."""
_TOP = 20


@dataclass(frozen=True, slots=True)
class Weight:
    """Dense share of one query, its source and reason, and the features that were used."""

    alpha: float
    source: Literal["request", "setting", "tuned", "default", "learned"]
    reason: str
    features: dict[str, float] | None = None


def features(query: QueryText, lexical: Sequence[Candidate], dense: Sequence[Candidate]) -> Vector:
    """Return the features of a query, shape (len(FEATURES),); legs are given best first and may be empty."""
    left = np.array([item.score for item in lexical], np.float64)
    right = np.array([item.score for item in dense], np.float64)
    left_ids, right_ids = [item.id for item in lexical], [item.id for item in dense]
    left_scaled = dict(zip(left_ids, min_max(left.tolist()).tolist(), strict=True))
    right_scaled = dict(zip(right_ids, min_max(right.tolist()).tolist(), strict=True))
    found = {
        "words": math.log1p(query.words),
        "question": float(query.question),
        "codes": math.log1p(len(query.codes)),
        "quoted": float(bool(query.phrases)),
        "overlap10": len({*left_ids[:10]} & {*right_ids[:10]}) / 10,
        "overlap50": len({*left_ids[:50]} & {*right_ids[:50]}) / 50,
        "correlation": _correlation(lexical, dense),
    }
    if left.size:
        best = max(float(left[0]), 1e-9)
        found |= {
            "lexical_per_word": best / max(1, query.words),
            "lexical_gap10": float(left[0] - left[min(9, left.size - 1)]) / best,
            "lexical_spread": float(left[0] - left[-1]) / best,
            "lexical_entropy": _entropy(left[:_TOP]),
            "lexical_best_in_dense": right_scaled.get(left_ids[0], 0.0),
        }
    if right.size:
        found |= {
            "dense_top": float(right[0]),
            "dense_gap10": float(right[0] - right[min(9, right.size - 1)]),
            "dense_spread": float(right[0] - right[-1]),
            "dense_entropy": _entropy(right[:_TOP]),
            "dense_best_in_lexical": left_scaled.get(right_ids[0], 0.0),
        }
    return np.array([found.get(name, 0.0) for name in FEATURES])


def standardise(values: Vector, mean: Sequence[float] | Vector, scale: Sequence[float] | Vector) -> Vector:
    """Return features in standard deviations from their mean, cut at `_CLIP`; shape (columns,) or (n, columns)."""
    cut: Vector = np.clip((values - np.asarray(mean)) / np.asarray(scale), -_CLIP, _CLIP)
    return cut


def predict(model: WeightModel, values: Vector) -> tuple[float, float, float]:
    """Return the dense share, the standard deviation of its logit, and the query's strangeness (1 is usual)."""
    raw = (values - np.asarray(model.mean)) / np.asarray(model.scale)
    standard = np.append(standardise(values, model.mean, model.scale), 1.0)
    logit = float(standard @ np.asarray(model.coefficients))
    deviation = math.sqrt(max(0.0, float(standard @ np.asarray(model.covariance) @ standard)))
    strangeness = math.sqrt(float(np.mean(np.clip(raw, -2 * _CLIP, 2 * _CLIP) ** 2)))
    return 1.0 / (1.0 + math.exp(-logit)), deviation, strangeness


def learned_weight(
    model: WeightModel, fixed: Weight, query: QueryText, lexical: Sequence[Candidate], dense: Sequence[Candidate]
) -> Weight:
    """Return the predicted weight, or `fixed` with the reason for rejecting the prediction."""
    if not lexical or not dense:
        return Weight(fixed.alpha, fixed.source, "one leg found nothing: there is nothing to weigh")
    values = features(query, lexical, dense)
    alpha, deviation, strangeness = predict(model, values)
    shown = {name: round(float(value), 4) for name, value in zip(FEATURES, values, strict=True)}
    if strangeness > _STRANGE:
        reason = f"the query is unlike the training data ({strangeness:.2f} > {_STRANGE})"
        return Weight(fixed.alpha, fixed.source, f"predicted {alpha:.3f} was not used: {reason}", shown)
    if deviation > _UNSURE:
        reason = f"the model is unsure (deviation of the logit {deviation:.2f} > {_UNSURE})"
        return Weight(fixed.alpha, fixed.source, f"predicted {alpha:.3f} was not used: {reason}", shown)
    strongest = contributions(model, values)[:3]
    reason = ", ".join(f"{name} {'+' if share > 0 else ''}{share:.2f}" for name, share in strongest)
    return Weight(round(alpha, 4), "learned", f"logit moved most by {reason}", shown)


def contributions(model: WeightModel, values: Vector) -> list[tuple[str, float]]:
    """Return each feature's contribution to the logit of the dense share, the strongest first."""
    standard = standardise(values, model.mean, model.scale)
    shares = zip(model.features, (standard * np.asarray(model.coefficients[:-1])).tolist(), strict=True)
    return sorted(shares, key=lambda item: -abs(item[1]))


def model_for(tuning: Tuning, embedding_model: str, calibration: Calibration | None) -> WeightModel | None:
    """Return the model for predictions: the tuning's own, else that of the calibration; None if it does not match.

    A model is valid for one embedding model, in any of its precisions, and one normalisation.
    """
    if not tuning.learned:
        return None
    model = tuning.weight_model or (calibration.weight_model if calibration is not None else None)
    fits = (
        model is not None
        and model.features == FEATURES
        and model.normalization == tuning.normalization
        and split_name(embedding_model)[0] == split_name(model.embedding_model)[0]
    )
    return model if fits else None


def _entropy(scores: Vector) -> float:
    """Return the entropy of the scores above the lowest, from 0 (one stands out) to 1 (all equal)."""
    above = scores - scores.min()
    total = float(above.sum())
    if total <= 0:
        return 1.0
    shares = above / total
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / math.log(max(2, scores.size)))


def _correlation(lexical: Sequence[Candidate], dense: Sequence[Candidate]) -> float:
    """Return Pearson's correlation of both scores over the passages that both legs returned; 0 for three or fewer."""
    other = {item.id: item.score for item in dense}
    pairs = np.array([(item.score, other[item.id]) for item in lexical if item.id in other])
    if len(pairs) <= 3 or (pairs.std(axis=0) == 0).any():
        return 0.0
    return float(np.corrcoef(pairs.T)[0, 1])
