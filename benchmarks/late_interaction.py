"""Late interaction over hybrid's candidates: `python benchmarks/late_interaction.py --data FOLDER`.

Method: late_interaction.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import harness
import late_data
import numpy as np
from late_data import Array, LateSet

from app.embedding.token_vectors import QueryTokens, TokenVectors
from app.evaluation.token_projection import ProjectionBasis, unit

SIZES = ((192, 4), (192, 2), (192, 1), (128, 4), (128, 2), (96, 4), (96, 2), (64, 4))
WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))
DEPTHS = (20, 50)
DEEPEST = max(DEPTHS)
Scorer = Callable[[int], Array]


def min_max(scores: Array) -> Array:
    spread = np.ptp(scores)
    return (scores - scores.min()) / spread if spread else np.ones_like(scores)


def curve(item: LateSet, query: int, late: Array) -> Array:
    """NDCG@10 of a query at every depth (rows) and weight (columns)."""
    found = np.empty((len(DEPTHS), len(WEIGHTS)))
    for place, depth in enumerate(DEPTHS):
        fused, tokens = min_max(item.fused[query][:depth]), min_max(late[:depth])
        found[place] = [item.ndcg(query, (1 - weight) * fused + weight * tokens) for weight in WEIGHTS]
    return found


def exact(item: LateSet, basis: ProjectionBasis) -> dict[str, Scorer]:
    """MaxSim of the whole hidden states, no projection and no rounding, at several choices of tokens and weights."""
    idf, plain = basis.idf * basis.word, np.ones(len(basis.word))
    tables = {"plain": plain, "without stop words": basis.kept * 1.0, "idf": idf}

    @lru_cache(maxsize=1)
    def similar(query: int) -> tuple[Array, Array, Array]:
        """Best cosines (passages, tokens of the query) over tokens kept, and over all words; the query's ids."""
        hidden, tokens = item.queries.of(item.rows[query])
        parts = [item.passages.of(passage) for passage in item.candidates[query][:DEEPEST].tolist()]
        starts = np.cumsum([0, *(len(ids) for _, ids in parts[:-1])])
        cosines = unit(np.concatenate([states for states, _ in parts])) @ unit(hidden).T
        ids = np.concatenate([ids for _, ids in parts])
        found = [
            np.maximum.reduceat(np.where(mask[ids][:, None], cosines, -1), starts, axis=0)
            for mask in (basis.kept, basis.word)
        ]
        return found[0], found[1], tokens

    def scorer(table: Array, place: int) -> Scorer:
        def score(query: int) -> Array:
            found = similar(query)
            shares = table[found[2]] if table[found[2]].any() else np.ones(len(found[2]))
            return found[place] @ shares / shares.sum()

        return score

    found = {f"384 floats, query {name}": scorer(table, 0) for name, table in tables.items()}
    return found | {"384 floats, query idf, stop words kept": scorer(idf, 1)}


def packed_passages(item: LateSet, codec: TokenVectors) -> dict[int, bytes]:
    wanted = np.unique(np.concatenate([found[:DEEPEST] for found in item.candidates]))
    return {passage: codec.pack(*item.passages.of(passage)) for passage in wanted.tolist()}


def packed(item: LateSet, codec: TokenVectors, passages: Mapping[int, bytes]) -> Scorer:
    """As the service scores: from the bytes."""

    def score(query: int) -> Array:
        tokens = codec.query(*item.queries.of(item.rows[query]))
        return codec.score(tokens, [passages[i] for i in item.candidates[query][:DEEPEST].tolist()])

    return score


def cost_ms(item: LateSet, codec: TokenVectors, passages: Mapping[int, bytes]) -> list[float]:
    """CPU milliseconds, of all cores together, of scoring 50 passages from bytes."""
    found = []
    for query in range(min(50, len(item))):
        tokens: QueryTokens = codec.query(*item.queries.of(item.rows[query]))
        data = [passages[i] for i in item.candidates[query][:DEEPEST].tolist()]
        began = time.process_time()
        for _ in range(5):
            codec.score(tokens, data)
        found.append((time.process_time() - began) * 200)
    return found


def forms(item: LateSet, rest: Sequence[LateSet], sizes: Sequence[tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """Form -> curves, bytes and cost; projection, levels and token weights come from the other sets' passages."""
    basis = ProjectionBasis.of([late_data.token_sample(item) for item in rest], late_data.load_tokenizer())
    found: dict[str, dict[str, Any]] = {}
    scorers = exact(item, basis)
    made = {form: np.empty((len(item), len(DEPTHS), len(WEIGHTS))) for form in scorers}
    for query in range(len(item)):
        for form, score in scorers.items():
            made[form][query] = curve(item, query, score(query))
    found |= {form: {"curves": 100 * values} for form, values in made.items()}
    for dimension, bits in sizes:
        codec = basis.codec(dimension, bits)
        passages = packed_passages(item, codec)
        score = packed(item, codec, passages)
        found[f"{dimension} x {bits} bits"] = {
            "curves": 100 * np.stack([curve(item, query, score(query)) for query in range(len(item))]),
            "bytes": [len(data) for data in passages.values()],
            "ms": cost_ms(item, codec, passages),
        }
    return found


def chosen_elsewhere(means: Mapping[str, Array], name: str) -> tuple[int, int]:
    """Depth and weight (as places) that gain most, on average, on the other sets."""
    gains = np.mean([item - item[:, :1] for other, item in means.items() if other != name], axis=0)
    return tuple(int(place) for place in np.unravel_index(gains.argmax(), gains.shape))  # type: ignore[return-value]


def report(found: Mapping[str, Mapping[str, dict[str, Any]]], names: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for form in found[names[0]]:
        means = {name: found[name][form]["curves"].mean(axis=0) for name in names}
        row: dict[str, Any] = {}
        for name in names:
            depth, weight = chosen_elsewhere(means, name)
            at, before = found[name][form]["curves"][:, depth, weight], found[name][form]["curves"][:, 0, 0]
            rng = np.random.default_rng(0)
            resampled = rng.choice(at - before, (2000, len(at))).mean(axis=1)
            row[name] = {
                "before": round(float(before.mean()), 2),
                "after": round(float(at.mean()), 2),
                "gain": round(float((at - before).mean()), 2),
                "interval": [round(float(value), 2) for value in np.quantile(resampled, (0.025, 0.975))],
                "depth": DEPTHS[depth],
                "weight": WEIGHTS[weight],
                "queries": len(at),
                "curve at 50": [round(float(value), 2) for value in means[name][-1]],
            }
        every = np.mean([item - item[:, :1] for item in means.values()], axis=0)
        figures[form] = {
            "mean gain": round(float(np.mean([row[name]["gain"] for name in names])), 2),
            "mean gain by weight": {
                str(depth): dict(zip(map(str, WEIGHTS), np.round(every[place], 2).tolist(), strict=True))
                for place, depth in enumerate(DEPTHS)
            },
            "sets": row,
        }
        if "bytes" in found[names[0]][form]:
            sizes = np.concatenate([found[name][form]["bytes"] for name in names])
            spent = np.concatenate([found[name][form]["ms"] for name in names])
            figures[form] |= {
                "KB a passage": {
                    "mean": round(float(sizes.mean()) / 1000, 2),
                    "p95": round(float(np.quantile(sizes, 0.95)) / 1000, 2),
                },
                "CPU ms for 50": harness.percentiles(spent.tolist()),
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder for candidates and hidden states")
    parser.add_argument("--sets", nargs="+", default=list(late_data.SETS))
    parser.add_argument("--queries", type=int, default=10_000, help="at most so many of each set")
    arguments = parser.parse_args()
    if len(arguments.sets) < 2:
        parser.error("two sets at least: depth, weight and projection of one come from the others")
    sets = late_data.prepare_sets(arguments.sets, arguments.data)
    found = {}
    for name in arguments.sets:
        began = time.perf_counter()
        rest = [sets[other] for other in arguments.sets if other != name]
        found[name] = forms(sets[name].part(arguments.queries), rest, SIZES)
        print(name, f"{time.perf_counter() - began:.0f} s", flush=True)
    harness.write_result("late_interaction", "benchmarks/late_interaction.md", report(found, arguments.sets))


if __name__ == "__main__":
    main()
