"""Fusion on every judged set at hand: `python benchmarks/fusion.py`; with --write-model the shipped weight model too.

Method: fusion.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np

from app.calibration import SHIPPED as CALIBRATIONS
from app.config import load_settings
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.comparison import compare
from app.evaluation.dataset import JudgedSet, load_set
from app.evaluation.general_weights import examples_of, train, without_rarest_words
from app.evaluation.learning import GRID, Examples, best_fixed, fit, join, shares_of, value_at
from app.evaluation.measures import measure
from app.evaluation.objective import Objective
from app.evaluation.ranking import normalize_all, rrf_ranking, single_rankings
from app.evaluation.target import EvaluationTarget, query_vectors
from app.search.weighting import FEATURES, Weight, learned_weight
from app.serving.opening import open_store
from app.tuning import SHIPPED, Boosts, WeightModel

SETS = ("cranfield", "cisi", "covidqa", "squad2dev", "scifact", "awsdocs")
DEPTH, RRF_CONSTANT = 100, 60
AWS_QUERIES, AWS_PASSAGES = 300, 5_000
PLAIN = SHIPPED.model_copy(update={"boosts": Boosts(title=0, heading=0, phrase=0, codes=0, quoted=0)})
QUERY_ONLY = ("words", "question", "codes", "quoted")
MODEL = "all-MiniLM-L6-v2"


def folder_of(name: str, scratch: Path) -> Path:
    """The set's folder; of the largest a part: 300 queries, the passages judged for them, and others up to 5,000."""
    if name != "awsdocs":
        return harness.SETS / name
    target = scratch / name
    target.mkdir(exist_ok=True)
    texts, judged = harness.queries(name)
    chosen = random.Random(5).sample(sorted(texts), AWS_QUERIES)
    needed = {document for query in chosen for document in judged[query]}
    rows = harness.corpus(name)
    others = [row for row in rows if row["_id"] not in needed]
    kept = [row for row in rows if row["_id"] in needed]
    kept += random.Random(5).sample(others, max(0, AWS_PASSAGES - len(kept)))
    files = {
        "corpus.jsonl": [json.dumps(row) for row in kept],
        "queries.jsonl": [json.dumps({"_id": query, "text": texts[query]}) for query in chosen],
        "qrels.tsv": [f"{query}\t{document}\t{grade}" for query in chosen for document, grade in judged[query].items()],
    }
    for file, lines in files.items():
        (target / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def columns(judged: JudgedSet, legs: Mapping[str, QueryLegs]) -> dict[str, float]:
    """NDCG@10 (x 100) of each leg, of linear over the dense share, and of RRF."""
    objective = Objective(judged.qrels, "NDCG@10")
    means = objective.curves(normalize_all(legs, "min_max")).mean(axis=0)
    found = {
        "BM25": objective.values({query: single_rankings(item)[0] for query, item in legs.items()}).mean(),
        "dense": objective.values({query: single_rankings(item)[1] for query, item in legs.items()}).mean(),
        **{f"linear {alpha:g}": means[place] for place, alpha in enumerate(GRID) if place % 2 == 0},
        "RRF": objective.values({q: rrf_ranking(item, RRF_CONSTANT) for q, item in legs.items()}).mean(),
    }
    return {name: round(100 * float(value), 2) for name, value in found.items()}


def learned_rankings(
    legs: Mapping[str, QueryLegs], model: WeightModel, fixed: float
) -> tuple[dict[str, list[str]], float]:
    """Rankings at predicted weights, as the service makes them, and the share of queries that had a prediction."""
    prepared = normalize_all(legs, "min_max")
    weights = {
        query: learned_weight(model, Weight(fixed, "default", ""), item.query, item.lexical, item.dense)
        for query, item in legs.items()
    }
    used = sum(weight.source == "learned" for weight in weights.values()) / len(weights)
    return {query: prepared[query].ranking(weights[query].alpha) for query in prepared}, used


def in_domain(data: Examples, start: WeightModel) -> dict[str, float]:
    """Held out: five folds, twice; the weight for all, and that of each query, both learned on the other folds."""
    fixed: list[float] = []
    learned: list[float] = []
    for seed in range(2):
        fold = np.random.default_rng(seed).permutation(len(data)) % 5
        for number in range(5):
            rest, part = data.take(fold != number), data.take(fold == number)
            model = fit(rest, embedding_model=start.embedding_model, normalization="min_max", start=start, bootstrap=0)
            fixed += value_at(part.curves, best_fixed(rest)).tolist()
            learned += value_at(part.curves, shares_of(model, part.features)).tolist()
    return {"one weight": round(100 * float(np.mean(fixed)), 2), "each query": round(100 * float(np.mean(learned)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--write-model", action="store_true", help="train on all sets, write it to app/calibrations")
    parser.add_argument("--data", type=Path, help="a folder to keep the indexes in, for another run")
    arguments = parser.parse_args()
    judged: dict[str, JudgedSet] = {}
    plain: dict[str, dict[str, float]] = {}
    legs: dict[str, dict[str, QueryLegs]] = {}
    mismatch: dict[str, dict[str, QueryLegs]] = {}
    with harness.open_folder() as scratch_folder, harness.braid_up(data=arguments.data) as up:
        if arguments.data is not None:  # the recipe of an index names its corpus file
            scratch_folder = arguments.data
        settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"])
        store = open_store(settings)
        for name in arguments.sets:
            began = time.perf_counter()
            judged[name] = load_set(folder_of(name, scratch_folder))
            scratch = harness.indexed(judged[name], store)
            vectors = query_vectors(judged[name].queries, store.encoder)
            where = EvaluationTarget(scratch.cluster, settings.access.tenant, store.encoder, settings, 1)
            for tuning in (PLAIN, SHIPPED):
                found = collect(
                    judged[name].queries, vectors, where, tuning,
                    depth=DEPTH, load=Load(workers=2), dense_from=legs.get(name),
                )  # fmt: skip
                assert not found.failed, found.failed
                legs[name] = found.legs
                if tuning is PLAIN:
                    plain[name] = columns(judged[name], found.legs)
            own_words = without_rarest_words(scratch.cluster, judged[name].queries)
            found = collect(
                own_words, vectors, where, SHIPPED, depth=DEPTH, load=Load(workers=2), dense_from=legs[name]
            )
            mismatch[name] = {q: replace(item, query=legs[name][q].query) for q, item in found.legs.items()}
            print(name, len(legs[name]), f"{time.perf_counter() - began:.0f} s", flush=True)
    data = {name: examples_of(judged[name].qrels, legs[name]) for name in arguments.sets}
    harder = {name: examples_of(judged[name].qrels, mismatch[name]) for name in arguments.sets}
    figures = {name: report(name, arguments.sets, judged, plain, legs, data, harder) for name in arguments.sets}
    summary = {
        key: round(float(np.mean([item["summary"][key] for item in figures.values()])), 2)
        for key in next(iter(figures.values()))["summary"]
    }
    harness.write_result("fusion", "benchmarks/fusion.md", {"mean over sets": summary, "sets": figures})
    if arguments.write_model:
        about = {
            "sets": {name: len(data[name]) for name in arguments.sets},
            "date": time.strftime("%Y-%m-%d"),
            "leaving one set out, NDCG@10 x 100": {
                name: {"fixed": item["fixed chosen on the other sets"], "learned": item["learned on the other sets"]}
                for name, item in figures.items()
            },
        }
        model = train(list(data.values()), list(harder.values()), embedding_model=MODEL, about=about)
        for path in sorted((CALIBRATIONS / MODEL).glob("*.json")):
            body = json.loads(path.read_text(encoding="utf-8"))
            body["weight_model"] = model.model_dump(mode="json")
            path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def report(
    name: str,
    sets: list[str],
    judged: Mapping[str, JudgedSet],
    plain: Mapping[str, dict[str, float]],
    legs: Mapping[str, Mapping[str, QueryLegs]],
    data: Mapping[str, Examples],
    harder: Mapping[str, Examples],
) -> dict[str, Any]:
    """One set: what a fixed weight gives, and what a model gives that never saw the set."""
    rest = [other for other in sets if other != name]
    others = join([data[other] for other in rest])
    model = train([data[other] for other in rest], [harder[other] for other in rest], embedding_model=MODEL)
    fixed = best_fixed(others)
    here = columns(judged[name], legs[name])
    prepared = normalize_all(legs[name], "min_max")
    rankings, used = learned_rankings(legs[name], model, fixed)
    learned = measure(judged[name].qrels, rankings)
    at_fixed = measure(judged[name].qrels, {query: item.ranking(fixed) for query, item in prepared.items()})
    linear = {column: value for column, value in here.items() if column.startswith("linear")}
    best_here = max(linear, key=lambda column: linear[column])
    at_best = measure(
        judged[name].qrels, {q: item.ranking(float(best_here.split()[1])) for q, item in prepared.items()}
    )
    against_fixed = compare(at_fixed, learned, "NDCG@10", names=("fixed", "learned"), permutations=4999)
    # what the query says alone: all other features at their mean
    blind = [place for place, feature in enumerate(FEATURES) if feature not in QUERY_ONLY]
    masked = Examples(others.features.copy(), others.curves, others.weights)
    masked.features[:, blind] = 0
    query_model = fit(masked, embedding_model="", normalization="min_max", bootstrap=0)
    own = data[name].features.copy()
    own[:, blind] = 0
    score = 100 * learned.means["NDCG@10"]
    trained_here = in_domain(data[name], model)
    plain_linear = max(value for column, value in plain[name].items() if column.startswith("linear"))
    return {
        "queries": len(legs[name]),
        "BM25 over the combined field alone": plain[name],
        "with Braid's lexical leg": here,
        "fixed weight": fixed,
        "fixed chosen on the other sets": round(100 * at_fixed.means["NDCG@10"], 2),
        "learned on the other sets": round(score, 2),
        "learned: all measures": {key: round(100 * value, 2) for key, value in learned.means.items()},
        "predicted for": round(used, 3),
        "learned - fixed": {
            "points": round(100 * against_fixed.mean_difference, 2),
            "interval": [round(100 * against_fixed.low, 2), round(100 * against_fixed.high, 2)],
            "p": round(against_fixed.p_randomization, 4),
            "wins, losses, ties": [against_fixed.wins, against_fixed.losses, against_fixed.ties],
        },
        "in words of their own": {
            "BM25": round(100 * float(harder[name].curves[:, 0].mean()), 2),
            "dense": round(100 * float(harder[name].curves[:, -1].mean()), 2),
            "fixed": round(100 * float(value_at(harder[name].curves, fixed).mean()), 2),
            "learned": round(
                100 * float(value_at(harder[name].curves, shares_of(model, harder[name].features)).mean()), 2
            ),
            "best fixed, chosen on it": round(100 * float(harder[name].curves.mean(axis=0).max()), 2),
        },
        "query features only": round(100 * float(value_at(data[name].curves, shares_of(query_model, own)).mean()), 2),
        "best fixed of this set, chosen on it": [best_here, round(100 * at_best.means["NDCG@10"], 2)],
        "trained on this set, cross-validated": trained_here,
        "summary": {
            "learned - fixed, both from the other sets": round(score - 100 * at_fixed.means["NDCG@10"], 2),
            "learned - best fixed column of the set": round(score - linear[best_here], 2),
            "learned - best plain column of the set": round(score - max(plain_linear, plain[name]["RRF"]), 2),
            "learned - better leg": round(score - max(here["BM25"], here["dense"]), 2),
            "learned - better plain leg": round(score - max(plain[name]["BM25"], plain[name]["dense"]), 2),
            "trained here: each query - one weight": round(trained_here["each query"] - trained_here["one weight"], 2),
        },
    }


if __name__ == "__main__":
    main()
