"""Processor time of a search beside that of the bare request: `python benchmarks/cost.py FOLDER`. Method: cost.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import harness
import orjson
import urllib3
from cost_vectors import MODEL, PART, PRECISION, fill, load, load_model, passages
from load_client import SEED, Machine
from opensearchpy import OpenSearch

sys.path.insert(0, str(harness.ROOT))

from app.access import Access
from app.config import load_settings
from app.embedding.encoder import Encoder
from app.passage import Passage, SourceType, passage_id
from app.serving.readiness import StoreCheck
from app.store import queries as queries_of
from app.store.bulk import bulk_index
from app.store.client import READ_ALIAS, Cluster, connect
from app.store.filters import PassageFilter, Scope, clauses
from app.store.heads import Head, Version, make_token, read_heads, write_heads
from app.store.index_names import write_index
from app.store.passages import TOKEN_VECTORS
from app.store.queries import LINEAR_PIPELINE

SIZES = (2_500, 10_000, 40_000, 128_350)
BLOCK = 25
"""Queries between two readings of the processes' times, which count in 10 ms."""
WARM = 600
"""Queries of each way before the first that counts: Java compiles for hundreds of searches, which is processor time."""
CLIENTS = 8
WAYS: dict[str, dict[str, Any]] = {"not reranked": {"rerank": False}, "reranked": {}}
STAGES = ("query_encode_ms", "lexical_ms", "vector_ms", "fetch_ms", "heads_ms", "rerank_ms", "total_ms")
_HEADERS = {"Content-Type": "application/json"}


class Service:
    """One `braid up` and a client of it."""

    def __init__(self, up: dict[str, Any]) -> None:
        self.machine = Machine(int(up["pid"]))
        self._url = up["url"] + "/v1/search"
        self._pool = urllib3.PoolManager(maxsize=CLIENTS)

    def search(self, query: str, body: dict[str, Any]) -> dict[str, float]:
        """Ask past all caches; return the timings of the answer."""
        data = orjson.dumps({"query": query, "cache": False, "timeout_ms": 30_000, **body})
        answer = self._pool.request("POST", self._url, body=data, headers=_HEADERS)
        found = orjson.loads(answer.data)
        if answer.status != 200 or found["degraded"]:
            raise SystemExit(f"{answer.status} {found.get('detail')} {found.get('degraded')}")
        timings: dict[str, float] = found["timings"]
        return timings

    def throughput(self, queries: Sequence[str], body: dict[str, Any]) -> float:
        """Searches a second of `CLIENTS` closed loops."""
        waiting = iter(queries)
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    query = next(waiting, None)
                if query is None:
                    return
                self.search(query, body)

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(queries) / (time.perf_counter() - began)


class Floor:
    """The bare request: one native `hybrid` by opensearch-py, the query encoded in this process."""

    def __init__(self, url: str, encoder: Encoder) -> None:
        self._client = OpenSearch(url)
        self._encoder = encoder
        self.encode_s = 0.0
        """Processor time of the encodings so far."""

    def search(self, query: str) -> None:
        began = time.process_time()
        vector = self._encoder.encode_query(query).tolist()
        self.encode_s += time.process_time() - began
        legs = [{"match": {"content": query}}, {"knn": {"embedding": {"vector": vector, "k": 100}}}]
        body = {"size": 10, "_source": ["title", "text"], "query": {"hybrid": {"queries": legs}}}
        found = self._client.search(body=body, index=READ_ALIAS, params={"search_pipeline": LINEAR_PIPELINE})
        assert found["hits"]["hits"]


class Spent:
    """Processor time and latencies of one way."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._seconds: Counter[str] = Counter()
        self._walls: list[float] = []
        self._timings: list[dict[str, float]] = []

    def block(self, queries: Sequence[str], search: Callable[[str], dict[str, float] | None], own: bool) -> None:
        """Ask one after the other; `own`: the time of this process counts, too."""
        before = self._machine.spent()
        for query in queries:
            began = time.perf_counter()
            timings = search(query)
            self._walls.append((time.perf_counter() - began) * 1000)
            if timings is not None:
                self._timings.append(timings)
        after = self._machine.spent()
        parts = {"opensearch", "client"} if own else {"opensearch", "service", "valkey"}
        for part in parts & after.keys():
            self._seconds[part] += after[part] - before[part]

    def figures(self) -> dict[str, Any]:
        """CPU in ms a query by part and together, latencies, mean times of the stages."""
        parts = {name: 1000 * value / len(self._walls) for name, value in sorted(self._seconds.items())}
        means = {
            name: sum(timings.get(name, 0.0) for timings in self._timings) / len(self._timings)
            for name in STAGES
            if self._timings
        }
        return {
            "cpu_ms": {name: round(value, 2) for name, value in {**parts, "whole": sum(parts.values())}.items()},
            "client_ms": harness.percentiles(self._walls),
            **({"mean_stage_ms": {name: round(value, 2) for name, value in means.items()}} if means else {}),
        }


def ensure_filled(up: dict[str, Any], folder: Path, size: int) -> dict[str, int]:
    """Fill the index of a new data folder; wait for merges; return what it holds."""
    client = OpenSearch(up["opensearch_url"], timeout=600)
    there = client.count(index=READ_ALIAS)["count"]
    if there < size:
        cluster = connect(load_settings(opensearch_url=up["opensearch_url"]).opensearch)
        rows = passages(size)
        for begin in range(there // PART * PART, size, PART):
            write(cluster, rows[begin : begin + PART], load(folder / "vectors", begin))
        client.indices.refresh(index=READ_ALIAS)
    while client.indices.stats(index=READ_ALIAS, metric="merge")["_all"]["total"]["merges"]["current"]:
        time.sleep(1)
    held = client.indices.stats(index=READ_ALIAS)["_all"]["primaries"]
    return {"passages": held["docs"]["count"], "segments": held["segments"]["count"]}


def write(cluster: Cluster, rows: Sequence[dict[str, Any]], vectors: Sequence[tuple[Any, bytes]]) -> None:
    """Write rows, each a document of one passage, as Braid's writer leaves them, in two steps in place of its seven."""
    index = write_index(cluster)
    heads, made = [], []
    for row, (vector, packed) in zip(rows, vectors, strict=False):
        document_id, tenant, content_hash = row["_id"], "default", sha256(row["_id"].encode()).hexdigest()
        token = make_token(content_hash, 1, "00000000", "")
        version = Version(token, 1, index)
        heads.append(
            Head(tenant, document_id, source_id="cost", version=version, content_hash=content_hash, access=Access())
        )
        passage = Passage(
            id=passage_id(tenant, document_id, token, 0), document_id=document_id, title=row["title"],
            section_heading="", text=row["text"], source_id="cost", source_type=SourceType.JSON, uri="",
            topic_tags=(), page=None, position=0, token_count=len(packed) // 24, tenant=tenant,
            timestamp="2026-01-01T00:00:00+00:00",
            acl=("public",), content_hash=token, embedding_model=f"{MODEL}-{PRECISION}",
            embedding=vector, token_vectors=packed,
        )  # fmt: skip
        made.append(passage)
    outcome = bulk_index(cluster, made, index=index, patience_s=600)
    written = write_heads(cluster, heads, timeout_s=300)
    assert not outcome.failed, outcome.failed[:1]
    assert {item.outcome for item in written} <= {"stored", "conflict"}  # a conflict: an earlier run wrote it


def queries() -> list[str]:
    """The queries of the collection: sentences of 20 words."""
    return list(harness.queries("awsdocs")[0].values())


def blocks_of(texts: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    for number in range(count):
        yield [texts[(number * BLOCK + place) % len(texts)] for place in range(BLOCK)]


def measure(up: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The floor and Braid's ways in turn, block by block, over the same queries."""
    service, floor = Service(up), Floor(up["opensearch_url"], load_model()[0])
    texts = queries()

    def ask(body: dict[str, Any]) -> Callable[[str], dict[str, float]]:
        return lambda query: service.search(query, body)

    ways: dict[str, Callable[[str], dict[str, float] | None]] = {
        "floor": floor.search,
        **{name: ask(body) for name, body in WAYS.items()},
    }
    for search in ways.values():  # warm: the JVM compiles what it runs often
        for query in texts[-WARM:]:
            search(query)
    spent = {name: Spent(service.machine) for name in ways}
    floor.encode_s = 0.0
    for number, block in enumerate(blocks_of(texts, rounds)):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            spent[name].block(block, ways[name], own=name == "floor")
    found = {name: item.figures() for name, item in spent.items()}
    found["floor"]["cpu_ms"]["of the client: encoding"] = round(1000 * floor.encode_s / (rounds * BLOCK), 2)
    base = found["floor"]["cpu_ms"]["whole"]
    for name in WAYS:
        found[name]["times_the_floor"] = round(found[name]["cpu_ms"]["whole"] / base, 2)
    return found


def request_costs(up: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Processor time of single requests of a search, in ms: of the node, and of this process."""
    settings = load_settings(opensearch_url=up["opensearch_url"], embedding_model=MODEL, embedding_precision=PRECISION)
    cluster = connect(settings.opensearch)
    check = StoreCheck(settings, cluster, load_model()[0])
    path, filters = f"/{READ_ALIAS}/_search", clauses(Scope("default"), PassageFilter())
    found = cluster.request("POST", path, body={"size": 5000, "_source": ["document_id"]})["hits"]["hits"]
    names = {hit["_id"]: Head("default", hit["_source"]["document_id"]) for hit in found}
    some = random.Random(SEED)

    def texts(count: int, **more: Any) -> None:
        body = queries_of.fetch_body(some.sample(list(names), count), filters, timeout_ms=10_000)
        cluster.request("POST", path, body={**body, **more})

    def tokens(count: int) -> None:
        ids = some.sample(list(names), count)
        cluster.request("POST", path, body=queries_of.tokens_body(ids, filters, timeout_ms=10_000))

    cases: dict[str, Callable[[], object]] = {
        "texts of 10": lambda: texts(10),
        "texts and token vectors of 50": lambda: texts(50, docvalue_fields=[TOKEN_VECTORS]),
        "token vectors of 50": lambda: tokens(50),
        "token vectors of 20": lambda: tokens(20),
        "heads of 10": lambda: read_heads(cluster, some.sample(list(names.values()), 10)),
        "templates compared": check._compare,
        "templates unchanged": check.run,
    }
    machine = Machine(int(up["pid"]))
    spent = {name: [0.0, 0.0] for name in cases}
    for number in range(-1, rounds):  # the first warms
        for name, send in cases.items():
            before, own = machine.spent()["opensearch"], time.thread_time()
            for _ in range(BLOCK):
                send()
            if number >= 0:
                spent[name][0] += machine.spent()["opensearch"] - before
                spent[name][1] += time.thread_time() - own
    scale = 1000 / (rounds * BLOCK)
    return {name: {"node": round(a * scale, 2), "client": round(b * scale, 2)} for name, (a, b) in spent.items()}


def compare(now: Service, before: Service, rounds: int) -> dict[str, Any]:
    """Throughput at `CLIENTS` clients of two revisions, in turn."""
    texts = queries()
    found: dict[str, Any] = {}
    for name, body in WAYS.items():
        rates: dict[str, list[float]] = {"now": [], "before": []}
        for number in range(-1, rounds):  # the first warms
            part = [texts[(number * 120 + place) % len(texts)] for place in range(120)]
            for which, service in (("now", now), ("before", before))[:: -1 if number % 2 else 1]:
                rate = service.throughput(part, body)
                if number >= 0:
                    rates[which].append(rate)
        means = {which: len(items) / sum(1 / rate for rate in items) for which, items in rates.items()}
        found[name] = {f"{which}_per_second": round(mean, 1) for which, mean in means.items()}
        found[name]["times"] = round(means["now"] / means["before"], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where vectors and data folders are, and stay")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=12, help=f"blocks of {BLOCK} queries of each way")
    parser.add_argument("--base", type=Path, help="a worktree of the revision to compare the throughput with")
    parser.add_argument("--base-size", type=int, default=10_000, help="the collection for that")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is then ended
    folder: Path = arguments.folder
    env = {"BRAID_EMBEDDING_MODEL": MODEL, "BRAID_EMBEDDING_PRECISION": PRECISION}
    figures: dict[str, Any] = {"native_faiss": "BRAID_KNN_LIB" in os.environ, "queries": arguments.rounds * BLOCK}
    if not arguments.try_out and (harness.RESULTS / "cost.json").is_file():
        figures = {**json.loads((harness.RESULTS / "cost.json").read_text(encoding="utf-8")), **figures}
    for size in arguments.sizes:
        fill(folder / "vectors", size)
        with harness.braid_up(env=env, data=folder / f"data-{size}") as up:
            holds = ensure_filled(up, folder, size)
            found = {**holds, "load_average": round(os.getloadavg()[0], 1), **measure(up, arguments.rounds)}
            figures[str(size)] = {**found, "requests": request_costs(up, arguments.rounds)}
            print(size, json.dumps(figures[str(size)], indent=1), flush=True)
    if arguments.base is not None:
        with ExitStack() as stack:
            size = arguments.base_size
            up = stack.enter_context(harness.braid_up(env=env, data=folder / f"data-{size}"))
            old = stack.enter_context(
                harness.braid_up(env=env, data=folder / f"base-{size}", root=arguments.base.resolve())
            )
            ensure_filled(up, folder, size)
            ensure_filled(old, folder, size)
            figures["throughput, 8 clients"] = compare(Service(up), Service(old), arguments.rounds // 2)
    if not arguments.try_out:
        harness.write_result("cost", "benchmarks/cost.md", figures)


if __name__ == "__main__":
    main()
