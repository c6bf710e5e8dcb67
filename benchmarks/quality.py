"""NDCG@10 of the whole chain against the reference figures: `python benchmarks/quality.py`.

Each set goes in as a user would put it (`braid up corpus.jsonl.gz`, once with --whole: each row one passage, as the
reference was measured; once cut into passages, the default) and is queried over HTTP. Method: quality.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import harness
import httpx2
import ir_measures
from ir_measures import RR, R, nDCG

WAYS: dict[str, dict[str, Any]] = {
    "bm25": {"mode": "lexical"},
    "dense": {"mode": "dense"},
    **{f"linear {alpha}": {"fusion": {"alpha": alpha}} for alpha in (0.3, 0.4, 0.5, 0.6, 0.7)},
    "rrf": {"fusion": {"method": "rrf"}},
    "as served": {},
}
REFERENCE = {
    "cranfield": {"bm25": 50.9, "dense": 50.9, "linear 0.3": 54.7, "linear 0.4": 55.7, "linear 0.5": 56.2,
                  "linear 0.6": 55.8, "linear 0.7": 55.2, "rrf": 55.8},
    "cisi": {"bm25": 37.1, "dense": 41.9, "linear 0.3": 42.7, "linear 0.4": 44.2, "linear 0.5": 45.0,
             "linear 0.6": 45.6, "linear 0.7": 45.2, "rrf": 44.4},
    "covidqa": {"bm25": 63.4, "dense": 39.2, "linear 0.3": 64.9, "linear 0.4": 63.5, "linear 0.5": 60.0,
                "linear 0.6": 55.4, "linear 0.7": 50.6, "rrf": 54.4},
}  # fmt: skip


def run(name: str, whole: bool, ways: Iterable[str]) -> dict[str, dict[str, float]]:
    """NDCG@10, MRR@10 and recall@100 (x 100) of each way."""
    texts, judged = harness.queries(name)
    qrels = [ir_measures.Qrel(q, d, g) for q, grades in judged.items() for d, g in grades.items()]
    found: dict[str, dict[str, float]] = {}
    arguments = [str(harness.corpus_file(name)), *(["--whole"] if whole else [])]
    with harness.braid_up(*arguments) as up, httpx2.Client(base_url=up["url"], timeout=60) as client:
        for way in ways:
            ranking = []
            for query_id, text in texts.items():
                body = {"query": text[:4096], "size": 100, "rerank": False, **WAYS[way]}
                answer = client.post("/v1/search", json=body).raise_for_status().json()
                best: dict[str, float] = {}
                for item in answer["results"]:
                    best.setdefault(item["document_id"], item["score"])
                ranking += [ir_measures.ScoredDoc(query_id, d, -rank) for rank, d in enumerate(best)]
            measured = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10, R @ 100], qrels, ranking)
            found[way] = {str(measure): round(100 * value, 2) for measure, value in measured.items()}
            print(name, "whole" if whole else "cut", way, found[way], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["cranfield", "cisi", "covidqa", "scifact"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    arguments = parser.parse_args()
    figures = {
        name: {
            "reference nDCG@10": REFERENCE.get(name, {}),
            "whole": run(name, True, arguments.ways),
            "cut": run(name, False, arguments.ways),
        }
        for name in arguments.sets
    }
    harness.write_result("quality", "benchmarks/quality.md", {"sets": figures})


if __name__ == "__main__":
    main()
