"""What the check of documents' heads costs a search: `python benchmarks/head_check.py`. Method: head_check.md."""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import psutil
from search_overhead import corpus_of

from app.config import load_settings
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.rerankers import load_reranker
from app.search.service import SearchService
from app.serving.opening import open_store
from app.store.filters import Scope
from app.store.head_check import HeadCheck

BLOCK = 50
"""Searches between two looks at a process's time, which is counted in 10 ms."""
CASES: dict[str, dict[str, Any]] = {
    "lexical, 10 hits": {"mode": "lexical"},
    "lexical, 20 hits": {"mode": "lexical", "size": 20},
    "hybrid, 10 hits": {"rerank": False},
    "hybrid, reranked, 10 hits": {},
}


def node_of(pid: int) -> psutil.Process:
    """The node that a `braid up` started."""
    return next(child for child in psutil.Process(pid).children(recursive=True) if child.name() == "java")


def spent(process: psutil.Process) -> float:
    """Seconds of processor that it has had."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(
    services: dict[str, SearchService], node: psutil.Process, texts: list[str], body: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """Blocks of the same searches with and without the check in turn, the order changing."""
    own = psutil.Process()
    differences: dict[str, list[float]] = {"latency_ms": [], "service_cpu_ms": [], "node_cpu_ms": []}
    latencies: dict[str, list[float]] = {name: [] for name in services}
    heads: list[float] = []
    for number in range(rounds):
        part = [texts[(number * BLOCK + n) % len(texts)] for n in range(BLOCK)]
        found: dict[str, tuple[float, float, float]] = {}
        for name in list(services)[:: 1 if number % 2 else -1]:
            before, node_before, block = spent(own), spent(node), []
            for text in part:
                request = SearchRequest(query=text, timeout_ms=60_000, **body)
                started = time.perf_counter()
                timings = services[name].search(request, Scope("default")).timings
                block.append((time.perf_counter() - started) * 1000)
                heads += [timings["heads_ms"]] if "heads_ms" in timings else []
            latencies[name] += block
            cpu, node_cpu = (
                (after - start) * 1000 / BLOCK for after, start in ((spent(own), before), (spent(node), node_before))
            )
            found[name] = statistics.median(block), cpu, node_cpu
        for kind, checked, plain in zip(differences, found["checked"], found["plain"], strict=True):
            differences[kind].append(checked - plain)
    return {
        **{f"{name}_ms": harness.percentiles(values) for name, values in latencies.items()},
        "heads_ms": harness.percentiles(heads),
        "blocks": rounds,
        **{f"more_{kind}": interval(values) for kind, values in differences.items()},
    }


def interval(values: list[float]) -> dict[str, float]:
    """Mean of the paired differences, and twice its standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(statistics.mean(values), 3), "plus_minus": round(2 * error, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    texts = list(harness.queries("awsdocs")[0].values())
    figures: dict[str, Any] = {"passages": arguments.passages}
    with harness.open_folder() as folder, ThreadPoolExecutor(4) as workers:
        path = corpus_of(arguments.passages, Path(folder))
        with harness.braid_up(str(path), "--whole") as up:
            settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"], query_log="off")
            store, node = open_store(settings), node_of(up["pid"])
            reranker = load_reranker(settings, store.encoder)
            gate = ReadinessGate(lambda: StoreState((), 1, False), workers)
            services = {
                name: SearchService(settings, store.cluster, store.encoder, gate, workers, reranker, heads=heads)
                for name, heads in (("plain", None), ("checked", HeadCheck(store.cluster)))
            }
            for name in arguments.cases:
                measure(services, node, texts, CASES[name], 4)  # warm
                figures[name] = measure(services, node, texts, CASES[name], arguments.rounds)
            store.cluster.close()
    harness.write_result("head_check", "benchmarks/head_check.md", figures)


if __name__ == "__main__":
    main()
