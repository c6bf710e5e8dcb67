"""Two legs fused in the service against the native hybrid request: `python benchmarks/legs.py`. Method: legs.md."""

from __future__ import annotations

import argparse
import random
import threading
import time
from typing import Any

import harness

from app.api.services import Services
from app.config import load_settings
from app.search.request import SearchRequest
from app.store.filters import Scope

SCOPE = Scope("default")
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "native hybrid request": ("native", {"fusion": {"learned": False}}),
    "two legs, one weight": ("legs", {"fusion": {"learned": False}}),
    "two legs, learned weight": ("legs", {}),
    "two legs, folded, 3 a document, highlights": (
        "legs",
        {"fold_duplicates": True, "max_per_document": 3, "highlight": True},
    ),
}


def ask(services: Services, text: str, how: dict[str, Any]) -> float:
    """Milliseconds of one search inside the service, encoding included."""
    request = SearchRequest.model_validate({"query": text[:4096], **how})
    started = time.perf_counter()
    found = services.search.search(request, SCOPE)
    elapsed = (time.perf_counter() - started) * 1000
    assert not found.degraded, found.degraded
    return elapsed


def crowd(services: Services, texts: list[str], how: dict[str, Any], clients: int) -> dict[str, Any]:
    """`clients` threads, each through its share of the texts: latency and searches a second."""
    times: list[float] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        for text in texts[number::clients]:
            spent = ask(services, text, how)
            with lock:
                times.append(spent)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**harness.percentiles(times), "per second": round(len(texts) / (time.perf_counter() - started), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="scifact")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    texts = list(harness.queries(arguments.set)[0].values())
    texts = random.Random(7).sample(texts, min(arguments.queries, len(texts)))
    with harness.braid_up(str(harness.corpus_file(arguments.set)), "--whole") as up:
        base = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"], query_log="off")
        opened = {way: Services.open(base.model_copy(update={"hybrid_way": way})) for way in ("native", "legs")}
        for text in texts[:60]:
            for way, how in WAYS.values():
                ask(opened[way], text, how)
        alone: dict[str, list[float]] = {name: [] for name in WAYS}
        for text in texts:
            for name, (way, how) in WAYS.items():
                alone[name].append(ask(opened[way], text, how))
        figures = {
            name: {
                "1 client": harness.percentiles(alone[name]),
                f"{arguments.clients} clients": crowd(opened[way], texts, how, arguments.clients),
            }
            for name, (way, how) in WAYS.items()
        }
        for services in opened.values():
            services.close()
    harness.write_result("legs", "benchmarks/legs.md", {"set": arguments.set, "ms": figures})


if __name__ == "__main__":
    main()
