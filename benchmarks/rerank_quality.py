"""What reranking gains on every judged set at hand: `python benchmarks/rerank_quality.py [--model FOLDER ...]`.

Method: rerank_quality.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fusion
import harness

from app.config import load_settings
from app.evaluation.check import shares_in_service
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.comparison import compare
from app.evaluation.dataset import JudgedSet, load_set, sample_queries
from app.evaluation.measures import Measurement, measure
from app.evaluation.ranking import normalize_all
from app.evaluation.reranked import RerankedQuery, rerank_all
from app.evaluation.target import EvaluationTarget, query_vectors
from app.search.rerankers import load_reranker
from app.search.reranking import Reranker, is_decisive
from app.serving.opening import open_store
from app.tuning import SHIPPED

DEPTHS = (20, 50)
MARGINS = (0.05, 0.1, 0.2, 0.3)
NAMES = ("NDCG@10", "MRR@10")
LOAD = Load(workers=2)


def gain(before: Measurement, after: Measurement) -> dict[str, Any]:
    """Means x 100, the difference in NDCG@10 with its 95 % interval and p, and how many queries won and lost."""
    found = compare(before, after, "NDCG@10", names=("fused", "reranked"), permutations=1999)
    return {
        **means(after),
        "gain": round(100 * found.mean_difference, 2),
        "interval": [round(100 * found.low, 2), round(100 * found.high, 2)],
        "p": round(found.p_randomization, 4),
    }


def skipping(
    judged: JudgedSet,
    fused: Mapping[str, list[str]],
    reranked: Mapping[str, list[str]],
    found: Mapping[str, RerankedQuery],
) -> dict[str, dict[str, float]]:
    """By lead of the best candidate: the share of queries that it spares the reranker, and NDCG@10 then."""
    figures = {}
    for margin in MARGINS:
        spared = {query for query, item in found.items() if is_decisive(item.candidates, margin)}
        mixed = {query: fused[query] if query in spared else reranked[query] for query in reranked}
        value = measure(judged.qrels, mixed).means["NDCG@10"]
        figures[f"{margin:g}"] = {"spared": round(len(spared) / len(reranked), 3), "NDCG@10": round(100 * value, 2)}
    return figures


def one_set(
    judged: JudgedSet,
    where: EvaluationTarget,
    legs: Mapping[str, QueryLegs],
    rerankers: Sequence[Reranker],
    most: int,
) -> dict[str, Any]:
    """Figures of one set: of late interaction over all queries, of cross-encoders over a sample of `most`."""
    shares = shares_in_service(SHIPPED, where, legs)
    fused = {query: item.ranking(shares[query]) for query, item in normalize_all(legs, SHIPPED.normalization).items()}
    figures: dict[str, Any] = {"queries": len(judged.queries), "fused": means(measure(judged.qrels, fused))}
    for reranker in rerankers:
        part = sample_queries(judged, most) if reranker.calibrated else judged
        before = measure(part.qrels, {query: fused[query] for query in part.queries})
        done = rerank_all(
            part.queries,
            {query: legs[query] for query in part.queries},
            shares,
            where,
            reranker,
            SHIPPED,
            depth=max(DEPTHS),
            load=LOAD,
        )
        if done.failed:
            raise SystemExit(f"{len(done.failed)} queries could not be reranked: {next(iter(done.failed.values()))}")
        spent = [item.milliseconds for item in done.queries.values()]
        found: dict[str, Any] = {
            "queries": len(part.queries),
            "fused": means(before),
            "weight": reranker.weight,
            f"ms for {max(DEPTHS)} passages": round(statistics.median(spent), 2),
        }
        for depth in DEPTHS:
            found[f"first {depth}"] = gain(before, measure(part.qrels, rankings(done.queries, reranker, depth)))
        alone = rankings(done.queries, reranker, max(DEPTHS), weight=1.0)
        found["alone"] = means(measure(part.qrels, alone))
        reranked = rankings(done.queries, reranker, max(DEPTHS))
        found["spared by a lead of"] = skipping(part, fused, reranked, done.queries)
        figures[reranker.name] = found
    return figures


def rankings(
    found: Mapping[str, RerankedQuery], reranker: Reranker, depth: int, weight: float | None = None
) -> dict[str, list[str]]:
    share = reranker.weight if weight is None else weight
    return {query: item.ranking(share, depth, calibrated=reranker.calibrated) for query, item in found.items()}


def means(measured: Measurement) -> dict[str, float]:
    return {name: round(100 * measured.means[name], 2) for name in NAMES}


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Mean gain over the sets against milliseconds for the deepest list, one point for each reranker and depth."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    points: dict[str, list[tuple[float, float]]] = {}
    for found in figures.values():
        for name, item in found.items():
            if isinstance(item, dict) and "weight" in item:
                for depth in DEPTHS:
                    cost = item[f"ms for {max(DEPTHS)} passages"] * depth / max(DEPTHS)
                    points.setdefault(f"{name}, first {depth}", []).append((cost, item[f"first {depth}"]["gain"]))
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, pairs in points.items():
        cost, value = (statistics.mean(column) for column in zip(*pairs, strict=True))
        axes.scatter([cost], [value])
        axes.annotate(name, (cost, value), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="milliseconds of scoring a query (two cores)",
        ylabel="gain in NDCG@10, mean over the sets (points)",
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(fusion.SETS))
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="folders of cross-encoders to measure beside")
    parser.add_argument("--most", type=int, default=60, help="queries of a set that a cross-encoder is measured on")
    parser.add_argument("--data", type=Path, help="a folder to keep the indexes in, for another run")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with harness.open_folder() as scratch, harness.braid_up(data=arguments.data) as up:
        if arguments.data is not None:  # the recipe of an index names its corpus file
            scratch = arguments.data
        settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"])
        store = open_store(settings)
        late = load_reranker(settings, store.encoder)
        models = [load_reranker(load_settings(reranker_model=folder), store.encoder) for folder in arguments.model]
        rerankers = [reranker for reranker in (late, *models) if reranker is not None]
        for name in arguments.sets:
            judged = load_set(fusion.folder_of(name, scratch))
            index = harness.indexed(judged, store)
            where = EvaluationTarget(index.cluster, settings.access.tenant, store.encoder, settings, 1)
            found = collect(
                judged.queries,
                query_vectors(judged.queries, store.encoder),
                where,
                SHIPPED,
                depth=SHIPPED.candidates,
                load=LOAD,
            )
            figures[name] = one_set(judged, where, found.legs, rerankers, arguments.most)
            print(name, figures[name], flush=True)
        for reranker in rerankers:
            reranker.close()
    plot(figures, harness.RESULTS / "rerank_quality.svg")
    harness.write_result("rerank_quality", "benchmarks/rerank_quality.md", figures)


if __name__ == "__main__":
    main()
