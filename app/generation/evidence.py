"""How well passages answer a question, sentence by sentence, on an absolute scale.

Fused scores can't say it: min-max makes the best passage of any search a 1. The cosine between question and sentence
and the share of the question's words that the passages hold can.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.generation.words import content_words
from app.passage import Hit
from app.sentences import sentence_spans

MAX_SENTENCES = 12
"""Embedded per question; 24 found no more (benchmarks/answers.md has the measurements behind all numbers here)."""
MAX_CHARACTERS = 600
COSINE_SHARE = 0.6
"""Of a sentence's score; the rest is lexical."""
RANK_WEIGHT = 0.1
"""What standing in the first passage adds to a sentence's score; in the n-th it is an n-th of it."""

Vectors = npt.NDArray[np.float32]


class TextEncoder(Protocol):
    """The part of the encoder that is needed here."""

    def encode_query(self, text: str) -> Vectors: ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors: ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of passage number `marker` (from 1), verbatim."""

    marker: int
    text: str
    cosine: float
    overlap: float

    @property
    def score(self) -> float:
        return COSINE_SHARE * self.cosine + (1 - COSINE_SHARE) * self.overlap + RANK_WEIGHT / self.marker


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentences, best first; the best cosine; the share of the question's words that the passages hold (0..1)."""

    sentences: tuple[Sentence, ...]
    cosine: float
    coverage: float


def weigh(question: str, hits: Sequence[Hit], encoder: TextEncoder) -> Evidence:
    """Weigh the sentences of `hits` against `question`.

    Raises:
        EncoderError: the embedding model failed.
    """
    candidates = [
        (marker, hit.text[start:end])
        for marker, hit in enumerate(hits, start=1)
        for start, end, _ in sentence_spans(hit.text)
        if content_words(hit.text[start:end])
    ]
    if not candidates:
        return Evidence((), 0.0, 0.0)
    words = [set(content_words(text)) for _, text in candidates]
    frequency = Counter(word for group in words for word in group)
    asked = set(content_words(question))
    weight = {word: math.log(1 + len(candidates) / (1 + frequency[word])) for word in asked}
    whole = sum(weight.values()) or 1.0
    overlaps = [sum(weight[word] for word in group & asked) / whole for group in words]
    # the titles say what a passage is about, so a sentence need not repeat it
    titles = {marker: set(content_words(f"{hit.title} {hit.section_heading}")) for marker, hit in enumerate(hits, 1)}
    everywhere = set(frequency).union(*titles.values())
    # first sentences of the better passages are kept even when they share no word
    order = sorted(range(len(candidates)), key=lambda i: (-overlaps[i], candidates[i][0], i))[:MAX_SENTENCES]
    texts = [candidates[i][1][:MAX_CHARACTERS] for i in order]
    cosines = encoder.encode_passages(texts) @ encoder.encode_query(question)
    sentences = [
        Sentence(candidates[i][0], candidates[i][1], float(cosine), overlaps[i])
        for i, cosine in zip(order, cosines, strict=True)
    ]
    sentences.sort(key=lambda sentence: (-sentence.score, sentence.marker))
    return Evidence(
        tuple(sentences),
        cosine=float(cosines.max()),
        coverage=len(asked & everywhere) / len(asked) if asked else 0.0,
    )


MIN_COSINE = 0.40
"""Below it nothing in the passages is about the question, unless they hold most of its words."""
MIN_COVERAGE = 0.67


def is_relevant(evidence: Evidence) -> bool:
    """Whether the passages are about the question at all. Either sign is enough: a false silence is the worse error."""
    if not evidence.sentences:
        return False
    return evidence.cosine >= MIN_COSINE or (evidence.coverage >= MIN_COVERAGE and evidence.cosine >= MIN_COSINE / 2)
