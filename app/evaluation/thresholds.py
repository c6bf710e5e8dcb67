"""Thresholds of a calibration, measured: the scale of a model's cosines, when to abstain, and the near cache's veto.

The scale is found without judgements: cosines of neighbouring sentences and of sentences of different documents,
brought to where all-MiniLM-L6-v2 has them. The thresholds are then chosen on that scale by the rules by which MiniLM's
were (benchmarks/answers.md, benchmarks/cache.md).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from app.cache.normal_form import differs
from app.calibration import AnswerThresholds
from app.generation.content_words import content_words
from app.generation.evidence import MAX_CHARACTERS, UNCALIBRATED, Evidence, TextEncoder, is_relevant, weigh
from app.passage import Hit
from app.sentences import sentence_spans

Vectors = npt.NDArray[np.float32]

UNRELATED, RELATED = 0.125, 0.442
"""Medians of all-MiniLM-L6-v2 in fp32, mean of five collections: sentences of different documents, neighbouring ones.
They are the ends of the common scale (benchmarks/models.md)."""
MIN_COVERAGE = 0.67
_GRID = tuple(round(0.05 * step, 2) for step in range(4, 11))
"""Least cosines on MiniLM's scale that are shown: 0.20 to 0.50, as MiniLM's were."""
_MOST = 0.40
"""MiniLM's own, which is never exceeded: a wrong silence is the worse error."""
MOST_WRONG_SILENCE, _SURE = 0.01, 0.95
"""Share of own questions on which an answer may be withheld, as by MiniLM's 0.40; a sample may show as many as this
share brings about with that probability."""
_NEAR_GRID = tuple(round(0.95 - 0.05 * step, 2) for step in range(10))
_NEAR_PAIRS = Path(__file__).with_name("near_pairs.jsonl")
_SENTENCES = 200
_LEAST_WORDS = 4


class QueriesEncoder(TextEncoder, Protocol):
    """The part of the encoder that is needed here."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class CosineScale:
    """Medians of one model, and with them the cosine that MiniLM's 0 corresponds to, and the size of MiniLM's 1."""

    unrelated: float
    related: float

    @property
    def unit(self) -> float:
        return (self.related - self.unrelated) / (RELATED - UNRELATED)

    @property
    def zero(self) -> float:
        return self.unrelated - UNRELATED * self.unit

    def at(self, cosine: float) -> float:
        """Return the model's cosine where MiniLM has `cosine`, rounded to three digits."""
        return round(self.zero + cosine * self.unit, 3)


def measure_scale(collections: Sequence[Sequence[str]], encoder: QueriesEncoder, *, seed: int = 0) -> CosineScale:
    """Measure the scale over passages of some collections, which weigh the same. Raises EncoderError.

    Raises:
        ValueError: no collection has two passages with two sentences.
    """
    unrelated, related = [], []
    for passages in collections:
        pairs = [pair for text in passages if (pair := _neighbours(text)) is not None]
        random.Random(seed).shuffle(pairs)  # noqa: S311 - not for security
        if len(pairs) < 2:
            continue
        left = encoder.encode_queries([first for first, _ in pairs[:_SENTENCES]])
        right = encoder.encode_passages([second for _, second in pairs[:_SENTENCES]])
        cosines = left @ right.T
        related.append(float(np.median(np.diag(cosines))))
        unrelated.append(float(np.median(cosines[~np.eye(len(cosines), dtype=bool)])))
    if not related:
        raise ValueError("no two passages have two sentences of four words or more: give more, or longer passages")
    found = CosineScale(float(np.mean(unrelated)), float(np.mean(related)))
    if found.unit <= 0.02:
        raise ValueError(
            f"neighbouring sentences (median cosine {found.related:.3f}) are hardly more similar than those of "
            f"different documents ({found.unrelated:.3f}): the model does not tell these texts apart"
        )
    return found


def _neighbours(text: str) -> tuple[str, str] | None:
    """Return the first two neighbouring sentences of a passage that say something."""
    sentences = [text[begin:end] for begin, end, _ in sentence_spans(text)]
    for first, second in pairwise(sentences):
        if all(len(content_words(item)) >= _LEAST_WORDS for item in (first, second)):
            return first[:MAX_CHARACTERS], second[:MAX_CHARACTERS]
    return None


def weigh_all(searches: Sequence[tuple[str, Sequence[Hit]]], encoder: TextEncoder) -> list[Evidence]:
    """Return the evidence of each question and its best passages; the scores of sentences are not used."""
    return [weigh(question, hits, encoder, UNCALIBRATED) for question, hits in searches]


def thresholds_at(scale: CosineScale, cosine: float) -> AnswerThresholds:
    """Return the thresholds for a least cosine on MiniLM's scale."""
    return AnswerThresholds(
        min_cosine=scale.at(cosine),
        min_covered_cosine=scale.at(cosine / 2),
        min_coverage=MIN_COVERAGE,
        zero_cosine=round(scale.zero, 4),
        cosine_unit=round(scale.unit, 4),
    )


def abstention(evidence: Sequence[Evidence], thresholds: AnswerThresholds) -> float:
    """Return the share of questions on which an answer would be withheld."""
    return float(np.mean([not is_relevant(item, thresholds) for item in evidence])) if evidence else 0.0


def choose_thresholds(
    scale: CosineScale, own: Mapping[str, Sequence[Evidence]], foreign: Mapping[str, Sequence[Evidence]]
) -> tuple[AnswerThresholds, dict[str, Any]]:
    """Return the thresholds, and the figures that they were chosen by.

    The least cosine is where MiniLM's is on the common scale; lower, if that withholds an answer on more own questions,
    all collections together, than chance makes of `MOST_WRONG_SILENCE`.

    Args:
        own: collection -> evidence of questions that it answers.
        foreign: collection -> evidence of questions of other collections.
    """
    from scipy.stats import binom

    asked = [item for items in own.values() for item in items]
    allowed = int(binom.ppf(_SURE, len(asked), MOST_WRONG_SILENCE)) if asked else 0
    rows = []
    chosen = thresholds_at(scale, _GRID[0] if asked else _MOST)
    for cosine in _GRID:
        tried = thresholds_at(scale, cosine)
        shares = {name: abstention(items, tried) for name, items in own.items()}
        refused = {name: abstention(items, tried) for name, items in foreign.items()}
        if asked and cosine <= _MOST and round(abstention(asked, tried) * len(asked)) <= allowed:
            chosen = tried
        rows.append({"on MiniLM's scale": cosine, "min_cosine": tried.min_cosine, **_percent(shares, refused)})
    return chosen, {
        "medians of cosines": {
            "unrelated sentences": round(scale.unrelated, 3),
            "neighbouring sentences": round(scale.related, 3),
        },
        "withheld, %": rows,
    }


def _percent(own: Mapping[str, float], foreign: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {
        name: {key: round(100 * value, 1) for key, value in shares.items()}
        for name, shares in (("own", own), ("foreign", foreign))
    }


def near_pairs() -> list[tuple[str, str]]:
    """Return pairs of queries that ask the same and have the same normal form, made for Braid (Apache-2.0)."""
    rows = map(orjson.loads, _NEAR_PAIRS.read_bytes().splitlines())
    return [(row["a"], row["b"]) for row in rows if differs(row["a"], row["b"]) is None]


def near_threshold(encoder: QueriesEncoder, pairs: Sequence[tuple[str, str]]) -> tuple[float, dict[str, Any]]:
    """Return the highest cosine of the grid that refuses none of the pairs, and the lowest cosines found.

    Different queries are kept apart by the normal form; the cosine guards against its mistakes.
    """
    left, right = (encoder.encode_queries([pair[side] for pair in pairs]) for side in (0, 1))
    cosines = np.sort((left * right).sum(axis=1))
    threshold = next((cosine for cosine in _NEAR_GRID if cosine <= cosines[0]), _NEAR_GRID[-1])
    figures = {"pairs": len(pairs), "lowest cosines": [round(float(value), 3) for value in cosines[:5]]}
    return threshold, figures
