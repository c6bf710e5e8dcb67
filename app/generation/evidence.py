"""How well passages answer a question, sentence by sentence, on an absolute scale.

Fused scores can't say it: min-max makes the best passage of any search a 1. The cosine between question and sentence
and the share of the question's words that the passages hold can.
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

from app.generation.words import content_words
from app.passage import Hit
from app.sentences import sentence_spans

MAX_SENTENCES = 12
"""Embedded per question; 24 found no more (benchmarks/answers.md has the measurements behind all numbers here)."""
MAX_CHARACTERS = 600
_AT_ONCE = 6
"""Sentences that are embedded together: between two such steps it is seen whether there is time for another."""
_MOST_CANDIDATES = 600
_MOST_PASSAGE_CHARACTERS = 20_000
"""What is looked at. Passages that Braid cuts have a third of it at most, and 50 of them hold about 500 sentences."""
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
    """Sentences, best first; the best cosine; the share of the question's words that the passages hold (0..1).

    `left_out`: sentences that would have been weighed, had there been time.
    """

    sentences: tuple[Sentence, ...]
    cosine: float
    coverage: float
    left_out: int = 0


def weigh(question: str, hits: Sequence[Hit], encoder: TextEncoder, until: float = math.inf) -> Evidence:
    """Weigh the sentences of `hits` against `question`.

    Args:
        question: as asked.
        hits: the passages, best first.
        encoder: embeds.
        until: monotonic seconds; the few sentences that share most words with the question are weighed in any case.

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
    # the titles say what a passage is about, so a sentence need not repeat it
    titles = {marker: set(content_words(f"{hit.title} {hit.section_heading}")) for marker, hit in enumerate(hits, 1)}
    everywhere = set(frequency).union(*titles.values())
    # first sentences of the better passages are kept even when they share no word
    order = sorted(range(len(candidates)), key=lambda i: (-overlaps[i], candidates[i][0], i))[:MAX_SENTENCES]
    sentences: list[Sentence] = []
    vector = encoder.encode_query(question)
    while len(sentences) < len(order) and (not sentences or time.monotonic() < until):
        part = order[len(sentences) : len(sentences) + _AT_ONCE]
        cosines = encoder.encode_passages([candidates[i][1][:MAX_CHARACTERS] for i in part]) @ vector
        sentences += [
            Sentence(candidates[i][0], candidates[i][1], float(cosine), overlaps[i])
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
    """Sentences that say something, with the marker of their passage."""
    for marker, hit in enumerate(hits, start=1):
        text = hit.text[:_MOST_PASSAGE_CHARACTERS]
        for start, end, _ in sentence_spans(text):
            if content_words(text[start:end]):
                yield marker, text[start:end]


MIN_COSINE = 0.40
"""Below it nothing in the passages is about the question, unless they hold most of its words."""
MIN_COVERAGE = 0.67


def is_relevant(evidence: Evidence) -> bool:
    """Whether the passages are about the question at all. Either sign is enough: a false silence is the worse error."""
    if not evidence.sentences:
        return False
    return evidence.cosine >= MIN_COSINE or (evidence.coverage >= MIN_COVERAGE and evidence.cosine >= MIN_COSINE / 2)
