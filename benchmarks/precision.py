"""What a lower precision costs in quality: NDCG@10 of the dense leg alone, exact search in numpy. See precision.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import harness
import ir_measures
import numpy as np
from ir_measures import nDCG

from app.config import load_settings
from app.embedding.encoder import Encoder, load_encoder

SETS = ("cranfield", "cisi", "covidqa", "scifact")
DEPTH = 100
METHOD = "Dense leg alone, exact cosine over all passages; title + ' ' + text cut at 256 tokens; NDCG@10 x 100."


def measure(encoder: Encoder, name: str) -> dict[str, Any]:
    """Quality on one set; speed in passages per CPU second, which other work on the machine disturbs least."""
    corpus = harness.corpus(name)
    ids = [document["_id"] for document in corpus]
    queries, judged = harness.queries(name)
    began = time.process_time()
    passages = encoder.encode_passages([f"{d.get('title', '')} {d['text']}".strip() for d in corpus])
    seconds = time.process_time() - began
    run: dict[str, dict[str, float]] = {}
    for query, text in queries.items():
        scores = passages @ encoder.encode_query(text)
        run[query] = {ids[i]: float(scores[i]) for i in np.argsort(-scores, kind="stable")[:DEPTH]}
    quality = ir_measures.calc_aggregate([nDCG @ 10], judged, run)[nDCG @ 10]
    return {
        "passages": len(corpus),
        "queries": len(queries),
        "ndcg@10": round(100 * quality, 2),
        "passages_per_cpu_second": round(len(corpus) / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--cache", type=Path, help="the cache folder with models/; default: the service's own")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for precision in arguments.precision:
        encoder = load_encoder(
            load_settings(
                embedding_model=arguments.model,
                embedding_precision=precision,
                embedding_provider="cpu",
                cache_dir=arguments.cache,
            )
        )
        results[encoder.name] = {}
        for name in SETS:
            results[encoder.name][name] = figures = measure(encoder, name)
            print(encoder.name, name, figures, file=sys.stderr, flush=True)
    harness.write_result("precision", METHOD, {"results": results})


if __name__ == "__main__":
    main()
