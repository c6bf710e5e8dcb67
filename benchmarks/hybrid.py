"""A hybrid search through Braid, through Haystack's OpenSearch pipeline, and bare: `python benchmarks/hybrid.py --haystack PYTHON`.

Method and how to make the environment for Haystack: hybrid.md.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import httpx2
import ir_measures
from ir_measures import nDCG

from app.config import load_settings
from app.embedding.encoder import load_encoder
from app.querytext import read_query
from app.store import queries as bodies
from app.store.filters import Scope, clauses
from app.tuning import Boosts

DEPTH, SIZE = 100, 10
PLAIN = Boosts(title=0, heading=0, phrase=0, codes=0, quoted=0)
Timed = tuple[float, list[str]]


@contextmanager
def haystack(python: str, url: str, name: str) -> Iterator[Callable[[str], Timed]]:
    """Haystack's pipeline in its own process, over the same node."""
    process = subprocess.Popen(
        [python, str(Path(__file__).with_name("haystack_side.py")), url, name, str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(harness.ROOT), "HAYSTACK_TELEMETRY_ENABLED": "False"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    print("haystack:", process.stdout.readline().strip(), flush=True)

    def ask(text: str) -> Timed:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(text) + "\n")
        process.stdin.flush()
        milliseconds, ids = json.loads(process.stdout.readline())
        return milliseconds, ids

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--haystack", required=True, help="python of an environment with haystack-ai and braid-rag")
    parser.add_argument("--set", default="scifact")
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    texts, judged = harness.queries(arguments.set)
    chosen = random.Random(7).sample(sorted(texts), min(arguments.queries, len(texts)))
    encoder = load_encoder(load_settings())
    environment = {"BRAID_VECTOR_VARIANT": "lucene-hnsw"}
    with (
        harness.braid_up(str(harness.corpus_file(arguments.set)), "--whole", env=environment) as up,
        haystack(arguments.haystack, up["opensearch_url"], arguments.set) as through_haystack,
        httpx2.Client(base_url=up["url"], timeout=60) as service,
        httpx2.Client(base_url=up["opensearch_url"], timeout=60) as node,
    ):

        def through_braid(text: str) -> Timed:
            started = time.perf_counter()
            answer = service.post("/v1/search", json={"query": text, "size": SIZE, "rerank": False}).json()
            return (time.perf_counter() - started) * 1000, [item["document_id"] for item in answer["results"]]

        def bare(text: str) -> Timed:
            vector = encoder.encode_query(text).tolist()
            query = bodies.hybrid_query(read_query(text), PLAIN, vector, DEPTH, clauses(Scope("default")))
            body = bodies.search_body(query, size=SIZE, timeout_ms=10_000)
            started = time.perf_counter()
            found = node.post("/braid-passages/_search?search_pipeline=braid-hybrid-linear", json=body).json()
            ended = time.perf_counter()
            return (ended - started) * 1000, [hit["_source"]["document_id"] for hit in found["hits"]["hits"]]

        ways: dict[str, Callable[[str], Timed]] = {
            "bare hybrid query, without encoding": bare,
            "Braid over HTTP": through_braid,
            "Haystack OpenSearchHybridRetriever": through_haystack,
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        rankings: dict[str, list[Any]] = {way: [] for way in ways}
        for text in list(texts.values())[:50]:
            for ask in ways.values():
                ask(text)
        for query_id in chosen:
            for way, ask in ways.items():
                milliseconds, ids = ask(texts[query_id])
                times[way].append(milliseconds)
                rankings[way] += [ir_measures.ScoredDoc(query_id, d, -rank) for rank, d in enumerate(ids)]
    qrels = [ir_measures.Qrel(q, d, g) for q in chosen for d, g in judged[q].items()]
    figures = {
        way: {
            **harness.percentiles(times[way]),
            "nDCG@10": round(100 * ir_measures.calc_aggregate([nDCG @ 10], qrels, rankings[way])[nDCG @ 10], 2),
        }
        for way in ways
    }
    harness.write_result("hybrid", "benchmarks/hybrid.md", {"set": arguments.set, "ms": figures})


if __name__ == "__main__":
    main()
