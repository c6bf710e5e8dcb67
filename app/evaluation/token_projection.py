"""Making of a token projection (`app.embedding.token_vectors`) from the token vectors of passages; nothing is labelled.

Principal components of the passages' unit token vectors, the levels of a number by Lloyd's algorithm, and the weight of
each token in a query from the share of passages that hold it (docs/late-interaction.md). Every set weighs the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.embedding.text_encoder import TextEncoder
from app.embedding.token_vectors import TokenVectors, make_codec
from app.querytext import ENGLISH_STOP_WORDS

Array = npt.NDArray[Any]

DIMENSION, BITS = 96, 2
WEIGHT, DEPTH = 0.4, 50
SAMPLE = 15_000
"""Token vectors of each set that the directions and levels are computed from."""
_AS_OF = 10_000
"""Passages of the collection that the weights are computed for."""
_MORE_STOP_WORDS = frozenset(
    """what which who whom whose how when where why does do did can could should would may might must shall has have had
    having been being were am i you he we she its his her our your them us me my from than so too very s t also about
    between through during only own same just because while both each few more most other some any all nor
    """.split()  # noqa: SIM905 - a list of words
)
_WORD_MARKS = "▁Ġ"
"""What tokenizers of the kinds Unigram and byte-level BPE put before a word."""


@dataclass(frozen=True, slots=True)
class TokenSample:
    """Token vectors of a set's passages: a sample of them, shape (n, width), with their ids, and for each token id the
    share of passages that hold it.
    """

    hidden: Array
    tokens: Array
    shares: Array


def sample_tokens(encoder: TextEncoder, texts: Sequence[str], vocabulary: int, *, seed: int = 0) -> TokenSample:
    """Embed passages and keep a sample of their token vectors. Raises EncoderError.

    Args:
        vocabulary: number of token ids.
    """
    most = max(1, 2 * SAMPLE // max(1, len(texts)))  # stop words and punctuation are thrown away afterwards
    random = np.random.default_rng(seed)
    counts = np.zeros(vocabulary)

    def keep(hidden: Array, tokens: Array) -> tuple[Array, Array]:
        counts[np.unique(tokens)] += 1
        rows = np.sort(random.choice(len(tokens), min(most, len(tokens)), replace=False))
        return hidden[rows].astype(np.float16), tokens[rows]

    _, kept = encoder.encode_passages_with_tokens(texts, keep)
    hidden, tokens = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return TokenSample(hidden, tokens, counts / len(texts))


def word_tables(tokenizer: Tokenizer) -> tuple[Array, Array]:
    """Return by token id whether it is a word or part of one (no punctuation, no special token), and whether it is an
    English stop word.
    """
    tokens = [tokenizer.id_to_token(place) or "" for place in range(tokenizer.get_vocab_size())]
    special = {place for place, item in tokenizer.get_added_tokens_decoder().items() if item.special}
    word = [any(map(str.isalnum, item)) and place not in special for place, item in enumerate(tokens)]
    stop = ENGLISH_STOP_WORDS | _MORE_STOP_WORDS
    return np.array(word), np.array([item.lstrip(_WORD_MARKS).lower() in stop for item in tokens])


@dataclass(frozen=True, slots=True)
class ProjectionBasis:
    """Material for a codec of any size: a sample of unit vectors, their directions, and tables by token id."""

    vectors: Array
    directions: Array
    idf: Array
    word: Array
    kept: Array

    @classmethod
    def of(cls, sets: Sequence[TokenSample], tokenizer: Tokenizer) -> ProjectionBasis:
        """Create the basis from the passages of `sets`; judgements are not looked at."""
        word, stop = word_tables(tokenizer)
        kept = word & ~stop
        parts = []
        for item in sets:
            there = np.flatnonzero(kept[item.tokens])
            rows = np.sort(np.random.default_rng(0).choice(there, min(SAMPLE, len(there)), replace=False))
            parts.append(item.hidden[rows].astype(np.float32))
        vectors = unit(np.concatenate(parts))
        shares = np.mean([item.shares for item in sets], axis=0)
        idf = np.log1p(((1 - shares) * _AS_OF + 0.5) / (shares * _AS_OF + 0.5))  # Lucene's
        return cls(vectors, principal(vectors), idf, word, kept)

    def codec(self, dimension: int = DIMENSION, bits: int = BITS, about: dict[str, Any] | None = None) -> TokenVectors:
        """Return a codec of `dimension` numbers of `bits` bits."""
        projection = self.directions[:, :dimension].astype(np.float16).astype(np.float32)
        projected = unit(self.vectors @ projection)
        scale = projected.std(axis=0)
        return make_codec(
            projection=projection,
            scale=scale,
            levels=lloyd((projected / scale)[::7].ravel(), bits),
            query_weights=(self.idf * self.word).astype(np.float16),
            kept=self.kept,
            weight=WEIGHT,
            depth=DEPTH,
            about=about or {},
        )


def principal(vectors: Array) -> Array:
    """Return directions (width, width), those first that hold most of the vectors' length; not centred, as cosines are
    not.
    """
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    ordered: Array = np.ascontiguousarray(directions[:, ::-1])
    return ordered


def lloyd(values: Array, bits: int) -> Array:
    """Return the 2 ** bits levels with the least mean squared error for a sample of numbers."""
    ordered = np.sort(values)
    levels: Array = np.quantile(ordered, (np.arange(1 << bits) + 0.5) / (1 << bits))
    for _ in range(100):
        parts = np.split(ordered, np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2))
        levels = np.array([part.mean() if len(part) else level for part, level in zip(parts, levels, strict=True)])
    return levels


def unit(vectors: Array) -> Array:
    """Return the rows at length 1."""
    rows: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return rows


def write_projection(codec: TokenVectors, path: Path) -> None:
    """Write a codec as `token_vectors.read_projection` reads it."""
    about = {**codec.about, "weight": codec.weight, "depth": codec.depth}
    np.savez_compressed(
        path,
        projection=codec.projection.astype(np.float16),
        scale=codec.scale,
        levels=codec.levels,
        query_weights=codec.query_weights.astype(np.float16),
        kept=codec.kept,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
    )
