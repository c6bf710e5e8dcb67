"""Evidence: how well passages answer a question, sentence by sentence, on an absolute scale.

Fused scores can't tell, because min-max scaling makes the best passage of any search a 1. The cosine between question
and sentence and the share of the question's words in the passages can. What a cosine means depends on the embedding
model, so the thresholds are those of its calibration.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.calibration import AnswerThresholds
from app.generation.content_words import content_words
from app.passage import Hit
from app.sentences import sentence_spans

MAX_SENTENCES = 12
"""Sentences embedded per question; 24 were no better (benchmarks/answers.md has the measurements
behind these numbers)."""
MAX_CHARACTERS = 600
_AT_ONCE = 6
"""Sentences embedded per step; between steps the remaining time is checked."""
_MOST_CANDIDATES = 600
_MOST_PASSAGE_CHARACTERS = 20_000
"""Limits on candidates. Braid's own passages have at most a third of it, and 50 of them have about 500 sentences."""
UNCALIBRATED = AnswerThresholds(min_cosine=-1, min_covered_cosine=-1, min_coverage=0)
"""Thresholds of a model without a calibration: every passage counts as relevant."""

Vectors = npt.NDArray[np.float32]


class TextEncoder(Protocol):
    """The part of the encoder that weighing needs."""

    def encode_query(self, text: str) -> Vectors: ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors: ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of passage number `marker` (from 1), verbatim; `score` orders the sentences of one question."""

    marker: int
    text: str
    cosine: float
    overlap: float
    score: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentences, best first; the best cosine; the share of the question's words in the passages (0..1).

    `left_out`: number of sentences that were not weighed for lack of time.
    """

    sentences: tuple[Sentence, ...]
    cosine: float
    coverage: float
    left_out: int = 0


def weigh(
    question: str, hits: Sequence[Hit], encoder: TextEncoder, thresholds: AnswerThresholds, until: float = math.inf
) -> Evidence:
    """Weigh the sentences of `hits` against `question`.

    Args:
        thresholds: of the encoder's calibration, or `UNCALIBRATED`.
        until: monotonic deadline in seconds; the sentences that share most words with the question are always weighed.

    Raises:
        EncoderError: the embedding model failed.
    """
    candidates = list(islice(_candidates(hits), _MOST_CANDIDATES))
    if not candidates:
        return Evidence((), 0.0, 0.0)
    words = [set(content_words(text)) for _, text in candidates]
    frequency = Counter(word for group in words for word in group)
    asked = set(content_words(question))
    weight = {word: math.log(1 + len(candidates) / (1 + frequency[word])) for word in asked}
    whole = sum(weight.values()) or 1.0
    overlaps = [sum(weight[word] for word in group & asked) / whole for group in words]
    # a title names the topic, so a sentence need not repeat it
    titles = {marker: set(content_words(f"{hit.title} {hit.section_heading}")) for marker, hit in enumerate(hits, 1)}
    everywhere = set(frequency).union(*titles.values())
    # first sentences of better passages are kept even if they share no word
    order = sorted(range(len(candidates)), key=lambda i: (-overlaps[i], candidates[i][0], i))[:MAX_SENTENCES]
    sentences: list[Sentence] = []
    vector = encoder.encode_query(question)
    while len(sentences) < len(order) and (not sentences or time.monotonic() < until):
        part = order[len(sentences) : len(sentences) + _AT_ONCE]
        cosines = encoder.encode_passages([candidates[i][1][:MAX_CHARACTERS] for i in part]) @ vector
        sentences += [
            _sentence(*candidates[i], float(cosine), overlaps[i], thresholds)
            for i, cosine in zip(part, cosines, strict=True)
        ]
    sentences.sort(key=lambda sentence: (-sentence.score, sentence.marker))
    return Evidence(
        tuple(sentences),
        cosine=max(sentence.cosine for sentence in sentences),
        coverage=len(asked & everywhere) / len(asked) if asked else 0.0,
        left_out=len(order) - len(sentences),
    )


def _candidates(hits: Sequence[Hit]) -> Iterator[tuple[int, str]]:
    """Yield meaningful sentences with the marker of their passage."""
    for marker, hit in enumerate(hits, start=1):
        text = hit.text[:_MOST_PASSAGE_CHARACTERS]
        for start, end, _ in sentence_spans(text, hit.text_language):
            if content_words(text[start:end]):
                yield marker, text[start:end]


def _sentence(marker: int, text: str, cosine: float, overlap: float, by: AnswerThresholds) -> Sentence:
    """Return the sentence with its score: cosine and overlap by their shares, and a bonus for the passage's rank."""
    similar = (cosine - by.zero_cosine) / by.cosine_unit
    score = by.cosine_share * similar + (1 - by.cosine_share) * overlap + by.rank_weight / marker
    return Sentence(marker, text, cosine, overlap, score)


def is_relevant(evidence: Evidence, thresholds: AnswerThresholds) -> bool:
    """Return whether the passages are about the question. Either sign suffices: false abstention is the worse error."""
    if not evidence.sentences:
        return False
    covered = evidence.coverage >= thresholds.min_coverage and evidence.cosine >= thresholds.min_covered_cosine
    return evidence.cosine >= thresholds.min_cosine or covered
