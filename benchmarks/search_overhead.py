"""The service's own share of a search: `python benchmarks/search_overhead.py`. Method: search_overhead.md."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
import httpx2
import psutil


def corpus_of(size: int, folder: Path) -> Path:
    """`size` passages of the largest set at hand, one row each."""
    path = folder / "corpus.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for row in itertools.islice(harness.corpus("awsdocs"), size):
            out.write(json.dumps({"document_id": row["_id"], "title": row["title"], "text": row["text"]}) + "\n")
    return path


def load(url: str, texts: list[str], clients: int, each: int, body: dict[str, Any]) -> dict[str, Any]:
    """`clients` threads, each `each` requests in turn; the client's times and the service's."""
    own: list[float] = []
    wall: list[float] = []
    took: list[float] = []
    encode: list[float] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            for step in range(each):
                text = texts[(number * each + step) % len(texts)]
                started = time.perf_counter()
                answer = (
                    client.post("/v1/search", json={"query": text, "cache": False, **body}).raise_for_status().json()
                )
                elapsed = (time.perf_counter() - started) * 1000
                timings = answer["timings"]
                with lock:
                    wall.append(elapsed)
                    took.append(timings["opensearch_took_ms"])
                    encode.append(timings.get("query_encode_ms", 0.0))
                    own.append(
                        timings["total_ms"] - timings["opensearch_took_ms"] - timings.get("query_encode_ms", 0.0)
                    )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return {
        "own_ms": harness.percentiles(own),
        "client_ms": harness.percentiles(wall),
        "opensearch_took_ms": harness.percentiles(took),
        "query_encode_ms": harness.percentiles(encode),
        "requests_per_second": round(clients * each / seconds, 1),
    }


def worker_memory(pid: int) -> float:
    """Resident MiB of the service's worker: the largest python process below `braid up`."""
    sizes = [p.memory_info().rss for p in psutil.Process(pid).children(recursive=True) if "python" in p.name()]
    return round(max(sizes) / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=400, help="a client, at most")
    parser.add_argument("--result", default="search_overhead", help="name of the result file")
    arguments = parser.parse_args()
    texts = list(harness.queries("awsdocs")[0].values())
    figures: dict[str, Any] = {"passages": arguments.passages}
    with tempfile.TemporaryDirectory() as folder:
        path = corpus_of(arguments.passages, Path(folder))
        with harness.braid_up(str(path), "--whole") as up:
            for name, body in {
                "hybrid": {"rerank": False},
                "hybrid, reranked": {},
                "hybrid, first 20 reranked": {"rerank": {"depth": 20}},
                "lexical": {"mode": "lexical"},
            }.items():
                load(up["url"], texts, 2, 40, body)  # warm
                for clients in (1, 8):
                    each = max(20, arguments.requests // clients)
                    figures[f"{name}, {clients} clients"] = load(up["url"], texts, clients, each, body)
            figures["worker_memory_mib"] = worker_memory(up["pid"])
    harness.write_result(arguments.result, "benchmarks/search_overhead.md", figures)


if __name__ == "__main__":
    main()
