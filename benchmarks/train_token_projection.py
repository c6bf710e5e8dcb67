"""Make app/embedding/token_projections/<model>.npz: `python benchmarks/train_token_projection.py --data FOLDER`.

Nothing is labelled: principal components of the passages' token vectors, the levels of a number by Lloyd's algorithm,
and token weights from document frequencies (docs/late-interaction.md). Every set weighs the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import late_data
import numpy as np
from late_data import Array, LateSet
from tokenizers import Tokenizer

from app.config import load_settings
from app.embedding.token_vectors import SHIPPED, TokenVectors, make_codec
from app.querytext import ENGLISH_STOP_WORDS

DIMENSION, BITS = 96, 2
WEIGHT, DEPTH = 0.4, 50
SAMPLE = 15_000
_AS_OF = 10_000
"""Passages of the collection that the weights are computed for."""
_MORE_STOP_WORDS = frozenset(
    """what which who whom whose how when where why does do did can could should would may might must shall has have had
    having been being were am i you he she we its his her our your them us me my from than so too very s t also about
    between through during only own same just because while both each few more most other some any all nor
    """.split()  # noqa: SIM905 - a list of words
)


def words(tokenizer: Tokenizer) -> tuple[Array, Array]:
    """By token id: is it a word or part of one (no punctuation, no special token), and is it a stop word?"""
    tokens = [tokenizer.id_to_token(place) for place in range(tokenizer.get_vocab_size())]
    special = {place for place, item in tokenizer.get_added_tokens_decoder().items() if item.special}
    word = [any(map(str.isalnum, item)) and place not in special for place, item in enumerate(tokens)]
    return np.array(word), np.array([item in ENGLISH_STOP_WORDS | _MORE_STOP_WORDS for item in tokens])


def rarity(sets: Sequence[LateSet], size: int) -> Array:
    """Lucene's idf of each token, from the mean share of passages that hold it over the sets."""
    shares = np.zeros(size)
    for item in sets:
        counts = np.zeros(size)
        for passage in range(len(item.passages)):
            first, last = item.passages.starts[passage : passage + 2]
            counts[np.unique(item.passages.tokens[first:last])] += 1
        shares += counts / len(item.passages) / len(sets)
    return np.log1p(((1 - shares) * _AS_OF + 0.5) / (shares * _AS_OF + 0.5))


def sample(sets: Sequence[LateSet], kept: Array, seed: int = 0) -> Array:
    """Unit token vectors that a passage keeps, the same number from each set."""
    found = []
    for item in sets:
        there = np.flatnonzero(kept[item.passages.tokens])
        rows = np.sort(np.random.default_rng(seed).choice(there, min(SAMPLE, len(there)), replace=False))
        found.append(item.passages.hidden[rows].astype(np.float32))
    return unit(np.concatenate(found))


def principal(vectors: Array) -> Array:
    """Directions (width, width), those first that hold most of the vectors' length; not centred, as cosines are not."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(directions[:, ::-1])


def lloyd(values: Array, bits: int) -> Array:
    """The 2 ** bits levels with the least mean squared error for a sample of numbers."""
    ordered = np.sort(values)
    levels = np.quantile(ordered, (np.arange(1 << bits) + 0.5) / (1 << bits))
    for _ in range(100):
        parts = np.split(ordered, np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2))
        levels = np.array([part.mean() if len(part) else level for part, level in zip(parts, levels, strict=True)])
    return levels


def unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a codec is made of, in any size: a sample of unit vectors, their directions, and tables by token id."""

    vectors: Array
    directions: Array
    idf: Array
    word: Array
    stop: Array
    kept: Array

    @classmethod
    def of(cls, sets: Sequence[LateSet], tokenizer: Tokenizer, *, stop_words: bool = False) -> Basis:
        """From the passages of `sets` (their judgements are not looked at); `stop_words`: passages keep theirs."""
        word, stop = words(tokenizer)
        kept = word if stop_words else word & ~stop
        vectors = sample(sets, kept)
        return cls(vectors, principal(vectors), rarity(sets, len(word)), word, stop, kept)

    def codec(self, dimension: int, bits: int, about: dict[str, Any] | None = None) -> TokenVectors:
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


def write(codec: TokenVectors, path: Path) -> None:
    about = {**codec.about, "weight": codec.weight, "depth": codec.depth}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        projection=codec.projection.astype(np.float16),
        scale=codec.scale,
        levels=codec.levels,
        query_weights=codec.query_weights.astype(np.float16),
        kept=codec.kept,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder for candidates and hidden states")
    arguments = parser.parse_args()
    sets = late_data.prepare_sets(late_data.SETS, arguments.data)
    about = {"model": late_data.MODEL, "date": time.strftime("%Y-%m-%d"), "passages of": list(sets)}
    codec = Basis.of(list(sets.values()), load_tokenizer()).codec(DIMENSION, BITS, about)
    path = SHIPPED / f"{late_data.MODEL}.npz"
    write(codec, path)
    print(f"{path.name}: {path.stat().st_size} bytes, id {codec.id.hex()}")


def load_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(load_settings().machine.cache_dir / "models" / late_data.MODEL / "tokenizer.json"))


if __name__ == "__main__":
    main()
