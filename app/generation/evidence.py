"""Evidence: how well passages answer a question, sentence by sentence, on an absolute scale.

Fused scores can't tell, because min-max scaling makes the best passage of any search a 1. The cosine between question
and sentence and the share of the question's words in the passages can.
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
COSINE_SHARE = 0.6
"""Share of the cosine in a sentence's score; the rest is lexical."""
RANK_WEIGHT = 0.1
"""Bonus of a sentence in the first passage; in the n-th passage it is divided by n."""

Vectors = npt.NDArray[np.float32]


class TextEncoder(Protocol):
    """The part of the encoder that weighing needs."""

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
    """Sentences, best first; the best cosine; the share of the question's words in the passages (0..1).

    `left_out`: number of sentences that were not weighed for lack of time.
    """

    sentences: tuple[Sentence, ...]
    cosine: float
    coverage: float
    left_out: int = 0


def weigh(question: str, hits: Sequence[Hit], encoder: TextEncoder, until: float = math.inf) -> Evidence:
    """Weigh the sentences of `hits` against `question`.

    Args:
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
    """Yield meaningful sentences with the marker of their passage."""
    for marker, hit in enumerate(hits, start=1):
        text = hit.text[:_MOST_PASSAGE_CHARACTERS]
        for start, end, _ in sentence_spans(text):
            if content_words(text[start:end]):
                yield marker, text[start:end]


MIN_COSINE = 0.40
"""Minimum cosine; below it the passages are not about the question, unless they contain most of its words."""
MIN_COVERAGE = 0.67


def is_relevant(evidence: Evidence) -> bool:
    """Return whether the passages are about the question. Either sign suffices: false abstention is the worse error."""
    if not evidence.sentences:
        return False
    return evidence.cosine >= MIN_COSINE or (evidence.coverage >= MIN_COVERAGE and evidence.cosine >= MIN_COSINE / 2)
