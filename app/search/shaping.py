"""Shaping of results: near-duplicates folded, passages per document limited, optionally diversified.

The order is: fold, then MMR, then the limit per document. Folding comes first because a near-duplicate would take
another passage's place in both later steps (for MMR it is just a vector close to 1.0, like a paraphrase). MMR precedes
the limit, so that a document keeps its most varied passages, not its best two near-duplicates; and it knows the limit,
because a passage that will not be shown must not displace others.

Everything is a function of the whole list of candidates, and every step preserves prefixes: the first k of a result
with a larger `count` are the same k. So a page never repeats or skips hits of the previous page.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from app.passage import Hit

Vector = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]

_SHINGLE = 5
_SHORT = 12
"""Words below which two texts fold only if they are equal: one word of eleven is in half of the shingles."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd and irregular: a shingle's hash is a polynomial of its words' hashes, modulo 2^64."""
_LONGEST_WORD = 20
"""Mean characters per word above which a script has no spaces: its characters then count as words."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Requested shape: maximum passages per document, folding of near-duplicates, MMR's lambda; None: not requested."""

    max_per_document: int | None = None
    fold_duplicates: bool = False
    mmr_lambda: float | None = None


@dataclass(frozen=True, slots=True)
class ShapedHits:
    """Hits, best first; by hit the ids of the near-duplicates folded into it, best first."""

    hits: tuple[Hit, ...]
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def shape(hits: Sequence[Hit], wanted: Shape, vectors: Mapping[str, Vector], count: int) -> ShapedHits:
    """Fold, diversify and limit `hits`.

    Args:
        hits: all candidates, best first; the same list for each page.
        wanted: the requested shape.
        vectors: passage id -> unit vector of shape (dimension,); read for MMR only.
        count: hits up to the end of the page; later ones are not ordered by MMR.
    """
    kept, folded = fold_duplicates(hits) if wanted.fold_duplicates else (list(hits), {})
    if wanted.mmr_lambda is not None:
        kept = mmr(kept, vectors, lam=wanted.mmr_lambda, count=count, max_per_document=wanted.max_per_document)
    if wanted.max_per_document is not None:
        kept = limit_per_document(kept, wanted.max_per_document)
    return ShapedHits(tuple(kept), {hit.id: folded[hit.id] for hit in kept if hit.id in folded})


def limit_per_document(hits: Sequence[Hit], most: int) -> list[Hit]:
    """Return the first `most` hits of each document, in order."""
    seen: Counter[str] = Counter()
    kept = []
    for hit in hits:
        seen[hit.document_id] += 1
        if seen[hit.document_id] <= most:
            kept.append(hit)
    return kept


def fold_duplicates(hits: Sequence[Hit], *, threshold: float = 0.9) -> tuple[list[Hit], dict[str, tuple[str, ...]]]:
    """Fold near-duplicates into the best of them.

    Two texts are near-duplicates if the Jaccard coefficient of their sets of word 5-shingles (Broder 1997, "On the
    resemblance and containment of documents") is at least `threshold`; texts shorter than 12 words, if they are equal
    except for case and white space. A hit is compared only with kept hits, so that a chain of small changes does not
    fold its ends into one.

    The comparison is exact, except for different shingles with the same hash of some fifty bits.

    Args:
        threshold: 0 < threshold <= 1.

    Returns:
        The kept hits in order, and id -> ids of the hits folded into it.
    """
    texts = [_words(hit.text) for hit in hits]
    sizes, owner, shingle = _shared_shingles(texts)
    starts = np.searchsorted(owner, np.arange(len(texts) + 1))
    numbers = int(shingle.max(initial=-1)) + 1
    kept: list[int] = []
    folded: dict[str, list[str]] = defaultdict(list)
    equal: dict[str, int] = {}  # normalised text -> index of the hit that represents it
    for place, hit in enumerate(hits):
        text, start, end = " ".join(texts[place]), starts[place], starts[place + 1]
        stands = equal.get(text)
        if stands is None and start and start < end:
            mine = np.zeros(numbers, bool)
            mine[shingle[start:end]] = True
            common = np.bincount(owner[:start][mine[shingle[:start]]], minlength=place)[kept]
            like = (common > 0) & (common >= threshold * (sizes[place] + sizes[kept] - common) - 1e-9)
            stands = kept[int(like.argmax())] if like.any() else None
        if stands is None:
            stands = place
            kept.append(place)
        else:
            folded[hits[stands].id].append(hit.id)
        equal[text] = stands
    return [hits[place] for place in kept], {key: tuple(ids) for key, ids in folded.items()}


def mmr(
    hits: Sequence[Hit],
    vectors: Mapping[str, Vector],
    *,
    lam: float,
    count: int,
    max_per_document: int | None = None,
) -> list[Hit]:
    """Order by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each pick is the hit with the largest ``lam * relevance - (1 - lam) * similarity``: relevance is the score, scaled
    to 0..1 over all hits; similarity is the largest cosine with an earlier pick, 0 if negative. Computes O(count * n)
    cosines.

    Args:
        hits: best first; ties keep this order.
        vectors: passage id -> unit vector of shape (dimension,); a hit without one is similar to none.
        lam: from 1.0 (the given order) to 0.0 (diversity only).
        count: number of picks; the others follow in the given order.
        max_per_document: maximum picks per document.
    """
    if lam >= 1.0 or not hits or count <= 0:
        return list(hits)
    scores = np.array([hit.score for hit in hits], np.float64)
    spread = float(np.ptp(scores))
    relevance = (scores - scores.min()) / spread if spread > 0 else np.ones_like(scores)
    matrix = _matrix(hits, vectors)
    nearest = np.zeros(len(hits))
    open_ = np.ones(len(hits), bool)
    documents = np.array([hit.document_id for hit in hits], object)
    taken: Counter[str] = Counter()
    picks: list[int] = []
    while len(picks) < count and open_.any():
        gain = np.where(open_, lam * relevance - (1.0 - lam) * nearest, -np.inf)
        best = int(gain.argmax())
        picks.append(best)
        open_[best] = False
        document = hits[best].document_id
        taken[document] += 1
        if taken[document] == max_per_document:
            open_ &= documents != document
        np.maximum(nearest, matrix @ matrix[best], out=nearest)
    chosen = set(picks)
    return [hits[place] for place in picks] + [hit for place, hit in enumerate(hits) if place not in chosen]


def _words(text: str) -> list[str]:
    words = text.casefold().split()
    length = sum(map(len, words))
    return list("".join(words)) if length > _LONGEST_WORD * len(words) else words


def _shared_shingles(texts: Sequence[Sequence[str]]) -> tuple[Places, Places, Places]:
    """Return the shingles that occur in more than one text; texts that are too short have none.

    Most shingles occur in one text only; without them, comparing dissimilar texts costs next to nothing.

    Returns:
        The size of each text's full set, shape (n,); and as pairs, in the order of the texts, the index of a text and
        the number of a shared shingle, shape (pairs,) each.
    """
    lengths = np.array([len(words) if len(words) >= _SHORT else 0 for words in texts], np.intp)
    words = chain.from_iterable(text for text, length in zip(texts, lengths, strict=True) if length)
    hashes = np.fromiter(map(hash, words), np.int64, int(lengths.sum())).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    mixed = np.zeros(max(0, len(hashes) - _SHINGLE + 1), np.uint64)
    for offset in range(_SHINGLE):
        mixed = mixed * _MULTIPLIER + hashes[offset : offset + len(mixed)]
    inside = owners[: len(mixed)] == owners[_SHINGLE - 1 :]  # not across the end of a text
    bits = np.uint64(len(texts).bit_length())
    pairs = np.sort((mixed[inside] << bits) | owners[: len(mixed)][inside].astype(np.uint64))
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]  # np.unique takes five times as long
    owner = (pairs & np.uint64((1 << int(bits)) - 1)).astype(np.intp)
    again = (pairs[1:] >> bits) == (pairs[:-1] >> bits)  # the same shingle as in the previous pair, in another text
    number = np.cumsum(np.append(True, ~again)[: len(pairs)])
    shared = np.append(False, again)[: len(pairs)] | np.append(again, False)[: len(pairs)]
    order = np.argsort(owner[shared], kind="stable")
    return np.bincount(owner, minlength=len(texts)), owner[shared][order], number[shared][order]


def _matrix(hits: Sequence[Hit], vectors: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
    """Return the unit vectors of `hits`, shape (n, dimension); zeros for a hit without one."""
    dimension = next((len(vectors[hit.id]) for hit in hits if hit.id in vectors), 1)
    matrix = np.zeros((len(hits), dimension))
    for place, hit in enumerate(hits):
        if hit.id in vectors:
            matrix[place] = vectors[hit.id]
    return matrix
