"""Two legs fused in the service against the native hybrid request, on both releases: `python benchmarks/legs.py`.

Method: legs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import harness
import ir_measures
import numpy as np
from ir_measures import nDCG

from app.config import load_settings
from app.config.section import OpenSearchRelease
from app.dev.node import EmbeddedCluster, start_cluster
from app.embedding.encoder import Encoder, load_encoder
from app.passage import embedding_text
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.service import SearchService
from app.store import templates
from app.store.capabilities import RRF_ACROSS_SHARDS, has_feature, probe
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.rendering import compose, render
from app.store.score_check import lexical_factor
from app.tuning import SHIPPED

SCOPE = Scope("default")
FIXED = SHIPPED.model_copy(update={"learned": False})
WAYS = {"native": ("native", FIXED), "legs, one weight": ("legs", FIXED), "legs, learned weight": ("legs", SHIPPED)}
WARM = 20
"""Searches of each way before the first that counts."""
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def node_ms(node: EmbeddedCluster) -> float:
    """Processor time that the node has taken so far, ms."""
    fields = Path(f"/proc/{node.pids[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_MS


def passage_vectors(name: str, encoder: Encoder, kept: Path | None) -> Any:
    """The vectors of a set's passages, shape (n, dimension); `kept` is a folder to keep them in between runs."""
    file = kept / f"{name}.npy" if kept else None
    if file is not None and file.is_file():
        return np.load(file)
    texts = [embedding_text(row.get("title", ""), "", row["text"]) for row in harness.corpus(name)]
    vectors = encoder.encode_passages(texts)
    if file is not None:
        np.save(file, vectors)
    return vectors


@contextmanager
def filled(cluster: Cluster, body: dict[str, Any], name: str, shards: int, vectors: Any) -> Iterator[Cluster]:
    """An index of a set, one passage a row, in one segment a shard."""
    index = f"{name}-{shards}"
    settings = {**body["settings"], "index": {**body["settings"]["index"], "number_of_shards": shards}}
    cluster.request("PUT", f"/{index}", body={**body, "settings": settings})
    rows = harness.corpus(name)
    numbers = [number for number, row in enumerate(rows) if row["text"].strip()]  # two of Cranfield's are empty
    rows, vectors = [rows[number] for number in numbers], vectors[numbers]
    for start in range(0, len(rows), 500):
        lines: list[Any] = []
        for row, vector in zip(rows[start : start + 500], vectors[start : start + 500], strict=True):
            lines.append({"index": {"_id": row["_id"]}})
            passage = {
                "document_id": row["_id"],
                "title": row.get("title", ""),
                "text": row["text"],
            }
            lines.append({**passage, "tenant": "default", "acl": ["public"], "embedding": vector.tolist()})
        done = cluster.request("POST", f"/{index}/_bulk", body="".join(json.dumps(x) + "\n" for x in lines).encode())
        assert not done["errors"], done["items"][0]
    cluster.request("POST", f"/{index}/_forcemerge", params={"max_num_segments": 1})
    cluster.request("POST", f"/{index}/_refresh")
    yield cluster.within(index)
    cluster.request("DELETE", f"/{index}")


def measure(
    node: EmbeddedCluster,
    services: dict[str, SearchService],
    texts: dict[str, str],
    judged: dict[str, dict[str, int]],
    rounds: int,
) -> dict[str, Any]:
    """Each way's quality, latency and processor time, and how many of ten results it shares with the exact fusion."""
    spent: dict[str, list[float]] = {way: [] for way in services}
    node_spent, own_spent = dict.fromkeys(services, 0.0), dict.fromkeys(services, 0.0)
    pages: dict[str, dict[str, list[str]]] = {way: {} for way in services}
    for turn in range(rounds + 1):
        for way in sorted(services, reverse=turn % 2 == 0):
            node_before, own_before = node_ms(node), time.process_time()
            for query, text in list(texts.items())[: None if turn else WARM]:
                request = SearchRequest.model_validate({"query": text[:4096], "rerank": False, "timeout_ms": 60_000})
                started = time.perf_counter()
                found = services[way].search(request, SCOPE)
                if turn:
                    spent[way].append((time.perf_counter() - started) * 1000)
                pages[way][query] = [hit.document_id for hit in found.hits]
                assert not found.degraded, found.degraded
            if turn:
                node_spent[way] += node_ms(node) - node_before
                own_spent[way] += (time.process_time() - own_before) * 1000
    qrels = [ir_measures.Qrel(query, document, g) for query in texts for document, g in judged[query].items()]
    exact, searches = pages["legs, one weight"], rounds * len(texts)
    figures = {}
    for way, found_pages in pages.items():
        run = [ir_measures.ScoredDoc(q, d, -rank) for q, page in found_pages.items() for rank, d in enumerate(page)]
        shared = [len({*page} & {*exact[query]}) / max(1, len(exact[query])) for query, page in found_pages.items()]
        figures[way] = {
            "nDCG@10": round(100 * ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10], 2),
            "shared with the exact fusion": round(float(np.mean(shared)), 4),
            "ms": harness.percentiles(spent[way]),
            "processor ms": {
                "node": round(node_spent[way] / searches, 2),
                "service": round(own_spent[way] / searches, 2),
            },
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["covidqa", "cranfield", "cisi"])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="a folder to keep the passages' vectors in, for another run")
    arguments = parser.parse_args()
    encoder = load_encoder(load_settings())
    vectors = {name: passage_vectors(name, encoder, arguments.vectors) for name in arguments.sets}
    figures: dict[str, Any] = {}
    for release in get_args(OpenSearchRelease):
        machine = load_settings(opensearch_version=release).machine
        with (
            harness.open_folder() as data,
            start_cluster(machine, data_dir=data) as node,
            ThreadPoolExecutor(4) as workers,
        ):
            settings = load_settings(opensearch_url=node.url, opensearch_timeout_s=60)
            cluster = Cluster(settings.opensearch)
            capabilities = probe(cluster)
            rendered = render(settings, "lucene-hnsw", encoder.dimension, version=capabilities.version)
            templates.apply(cluster, capabilities, rendered)
            factor = lexical_factor(cluster)
            across = has_feature(capabilities, RRF_ACROSS_SHARDS)
            for name in arguments.sets:
                texts, judged = harness.queries(name)
                chosen = random.Random(7).sample(sorted(texts), min(arguments.queries, len(texts)))
                for shards in (1, 3) if name == arguments.sets[0] else (1,):
                    with filled(cluster, compose(rendered), name, shards, vectors[name]) as within:
                        services = {}
                        for title, (way, tuning) in WAYS.items():
                            state = StoreState((), shards, across, tuning, lexical_factor=factor)
                            gate = ReadinessGate(lambda state=state: state, workers)  # type: ignore[misc]
                            own = settings.with_values(hybrid_way=way)
                            services[title] = SearchService(own, within, encoder, gate, workers)
                        found = measure(node, services, {q: texts[q] for q in chosen}, judged, arguments.rounds)
                    figures.setdefault(release, {}).setdefault(name, {})[f"shards: {shards}"] = found
                    harness.write_result("legs", "benchmarks/legs.md", {"releases": figures})
            cluster.close()


if __name__ == "__main__":
    main()
