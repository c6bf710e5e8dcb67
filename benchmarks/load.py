"""What the service bears: `python benchmarks/load.py`. Method and choices: load.md."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import gevent.lock
import harness
from load_client import REPEATED, SEED, Caller, Machine, Sample, Stream, figures, fresh_queries, spread

sys.path.insert(0, str(harness.ROOT))

from app.gateway.flag_file import shipped
from tests.nginx import behind_nginx, nginx_program

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
CACHES = ("response_cache", "near_cache", "embedding_cache", "rerank_cache")
BUDGET_MS, STALE_MS, DOCUMENTS_PER_SECOND = 1000, 5000, 1.0
CONNECTIONS = 900
METHOD = (
    "benchmarks/load.md. One `braid up`, its defaults (one worker, late interaction as the reranker), loopback. "
    "Client: geventhttpclient in one process. Queries: a stream with Zipf's law (exponent 1 over those seen before, in "
    f"the order of their first coming), {REPEATED:.0%} of the requests repeat one that came before, the rest are new "
    f"(seed {SEED}). Times in ms; client_ms is what the client waited, the stages are the service's own timings, of "
    "answers that were made and not cached. *_cores: processor cores that the part used meanwhile; others_cores: what "
    "everything else on the machine used."
)


def write_corpus(path: Path, size: int) -> int:
    """The passages of the two question sets; how many."""
    rows = [row for name in ("covidqa", "squad2dev") for row in harness.corpus(name)][:size]
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps({"document_id": row["_id"], "title": row["title"], "text": row["text"]}) + "\n")
    return len(rows)


def write_flags(path: Path, caches: bool) -> None:
    """The shipped flags with all caches on or off; the service reads them within seconds."""
    flags = json.loads(shipped().dump())
    for name in CACHES:
        flags["flags"][name]["default"] = caches
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(flags), encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)


class Load:
    """One service under load."""

    def __init__(self, up: Mapping[str, Any], stream: Stream, flags: Path) -> None:
        self.url, self.stream, self.flags = up["url"], stream, flags
        self.machine = Machine(int(up["pid"]))
        self.place = 0

    def caches(self, wanted: bool) -> None:
        """Switch all caches, and wait until the service goes by it."""
        write_flags(self.flags, wanted)
        caller = Caller(self.url, 1)
        until = time.monotonic() + 30
        while (caller.post("/v1/search", {"query": "which flags are on"}).cache == "off") == wanted:
            if time.monotonic() > until:
                raise SystemExit("the service did not take the flags; is Redis there?")
            time.sleep(0.3)
        caller.close()

    def closed(
        self,
        clients: int,
        seconds: float,
        *,
        path: str = "/v1/search",
        queries: Callable[[int], str] | None = None,
        most: int | None = None,
        **body: Any,
    ) -> dict[str, Any]:
        """`clients` that each send one request after the other; ends after `seconds`, or `most` requests."""
        samples: list[Sample] = []
        next_place = itertools.count(0)
        ask = queries or (lambda place: self.stream.at(self.place + place))
        ends = time.perf_counter() + seconds
        self.machine.cores()

        def client() -> None:
            caller = Caller(self.url, 1)
            while time.perf_counter() < ends:
                place = next(next_place)
                if most is not None and place >= most:
                    break
                samples.append(caller.post(path, {"query": ask(place), **body}))
            caller.close()

        began = time.perf_counter()
        gevent.joinall([gevent.spawn(client) for _ in range(clients)], raise_error=True)
        return figures(samples, time.perf_counter() - began) | self.machine.cores()

    def open(self, rate: float, seconds: float, *, path: str = "/v1/search", **body: Any) -> dict[str, Any]:
        """Requests that come at random, `rate` a second, whatever became of those before."""
        caller, samples, sizes = Caller(self.url, CONNECTIONS), list[Sample](), list[dict[str, float]]()
        lags: list[float] = []
        arrivals = random.Random(SEED)
        self.machine.cores()
        under_way = gevent.lock.BoundedSemaphore(CONNECTIONS)

        def one(place: int, due: float) -> None:
            with under_way:
                samples.append(caller.post(path, {"query": self.stream.at(place), **body}, due))

        def watch() -> None:
            while True:
                sizes.append(self.machine.memory_mib())
                gevent.sleep(seconds / 60)

        watcher = gevent.spawn(watch)
        jobs = []
        began = due = time.perf_counter()
        while due < began + seconds:
            gevent.sleep(max(0.0, due - time.perf_counter()))
            lags.append((time.perf_counter() - due) * 1000)
            jobs.append(gevent.spawn(one, self.place + len(jobs), due))
            due += arrivals.expovariate(rate)
        gevent.joinall(jobs, raise_error=True)
        watcher.kill()
        caller.close()
        self.place += len(jobs)
        took = time.perf_counter() - began
        return {
            "offered_per_second": round(rate, 1),
            "budget_ms": body.get("timeout_ms"),
            "sent": len(samples),
            **figures(samples, took),
            "refused_ms": spread([item.ms for item in samples if item.status == 429]),
            "client_lag_ms": spread(lags),
            "memory_mib": {"start": sizes[0], "middle": sizes[len(sizes) // 2], "end": sizes[-1]},
            **self.machine.cores(),
        }


def matrix(load: Load, seconds: float, note: Callable[[str, Any], None]) -> float:
    """QPS and times by clients, with and without caches in turn; the most requests a second with caches."""
    best = 0.0
    load.caches(True)
    load.closed(4, seconds, most=400)  # warm, and some queries that were seen before
    load.place += 400
    for number, clients in enumerate(CLIENTS):
        used = 0
        for wanted in (True, False) if number % 2 else (False, True):
            load.caches(wanted)
            found = load.closed(clients, seconds)
            if wanted:
                used = sum(found["by_status"].values())
                if set(found["by_status"]) == {"200"}:  # what is refused is no load that it bears
                    best = max(best, found["requests_per_second"])
            note(f"search, {clients} clients, caches {'on' if wanted else 'off'}", found)
        load.place += used
    load.place += 10_000
    return best


def answers(load: Load, seconds: float, note: Callable[[str, Any], None]) -> None:
    """Quoted answers, with and without caches; those of searches do not help them."""
    load.caches(True)
    load.stream.at(1000)
    load.closed(4, 60, path="/v1/answer", queries=load.stream.popular, most=150)
    for wanted in (False, True):
        load.caches(wanted)
        found = load.closed(4, 2 * seconds, path="/v1/answer")
        note(f"answer (quoted), 4 clients, caches {'on' if wanted else 'off'}", found)
    load.place += 1000


def hits(load: Load, seconds: float, note: Callable[[str, Any], None]) -> None:
    """What an answer from the cache takes over HTTP."""
    load.caches(True)
    known = [load.stream.at(place) for place in range(load.place, load.place + 200)]
    load.closed(2, 60, queries=known.__getitem__, most=len(known))
    for clients in (1, 2, 4):
        found = load.closed(clients, seconds, queries=lambda place: known[place % len(known)])
        note(f"hits, {clients} clients", found)
    path = harness.ROOT / "benchmarks" / "near_cache" / "paraphrases.jsonl"
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][:400]
    firsts = list(dict.fromkeys(pair["a"] for pair in pairs))
    load.closed(2, 60, queries=firsts.__getitem__, most=len(firsts))
    # once each: a query that was asked and not found is an exact hit afterwards
    found = load.closed(1, 60, queries=lambda place: pairs[place]["b"], most=len(pairs))
    note("paraphrases, 1 client", found)


def overload(
    load: Load, sustained: float, cells: Mapping[str, Any], seconds: float, note: Callable[[str, Any], None]
) -> None:
    """Twice as much as it can do."""

    def most_of(cell: str, otherwise: float) -> float:
        return float(cells.get(cell, {}).get("requests_per_second", otherwise))

    load.caches(True)
    load.closed(4, 30, most=1500)  # where nothing else ran before
    load.place += 1500
    note("overload, searches, as shipped", load.open(2 * sustained, seconds, timeout_ms=BUDGET_MS))
    load.caches(False)
    rate = most_of("search, 8 clients, caches off", sustained / 3)
    note("overload, searches, caches off", load.open(2 * rate, 0.3 * seconds, timeout_ms=BUDGET_MS))
    rate = most_of("answer (quoted), 4 clients, caches off", sustained / 17)
    found = load.open(2 * rate, 0.2 * seconds, path="/v1/answer", timeout_ms=BUDGET_MS)
    note("overload, answers (quoted), caches off", found)


@contextmanager
def ingesting(load: Load, rate: float) -> Iterator[list[Sample]]:
    """Documents that are stored meanwhile, so many a second, over a connection of its own."""
    rows = itertools.islice(harness.corpus("scifact"), 2000) if (harness.SETS / "scifact").is_dir() else iter(())
    done: list[Sample] = []

    def work() -> None:
        caller, due = Caller(load.url, 1), time.perf_counter()
        for row in rows:
            gevent.sleep(max(0.0, due - time.perf_counter()))
            body = {"document_id": f"load-{time.time_ns()}", "title": row["title"], "text": row["text"]}
            done.append(caller.post("/v1/documents", body))
            due += 1 / rate

    job = gevent.spawn(work)
    try:
        yield done
    finally:
        job.kill()


def while_ingesting(load: Load, seconds: float, name: str, note: Callable[[str, Any], None]) -> None:
    load.caches(True)
    load.closed(4, seconds, most=400)
    load.place += 400
    note(f"{name}, nothing ingested, 4 clients", load.closed(4, seconds / 2))
    load.place += 3000
    with ingesting(load, DOCUMENTS_PER_SECOND) as done:
        began = time.perf_counter()
        found = load.closed(4, seconds)
        stored = [item.ms for item in done if item.status == 200]
        passed = time.perf_counter() - began
    load.place += 3000
    found |= {"documents_per_second": round(len(stored) / passed, 2), "store_ms": spread(stored)}
    note(f"{name}, documents ingested, 4 clients", found)


def kept(wanted: bool) -> dict[str, Any]:
    """The rows of the last run."""
    path = harness.RESULTS / "load.json"
    if not wanted or not path.is_file():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {name: row for name, row in rows.items() if isinstance(row, dict) and "by_status" in row}


@contextmanager
def chain(up: Mapping[str, Any], direct: bool) -> Iterator[Mapping[str, Any]]:
    """Put nginx before the service where there is one, with room for all the load that one address makes."""
    if direct or nginx_program() is None:
        yield up
        return
    with behind_nginx(urlsplit(up["url"]).port or 80, limit_conn="address 4000") as proxy:
        yield {**up, "url": proxy.url}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=12, help="of each cell")
    parser.add_argument("--overload-seconds", type=float, default=300)
    parser.add_argument("--parts", nargs="+", default=["matrix", "answers", "hits", "overload", "ingest"])
    parser.add_argument("--data", type=Path, help="a data folder that is kept, so that a second run ingests nothing")
    parser.add_argument("--rate", type=float, help="the sustainable requests a second, where the matrix is left out")
    parser.add_argument("--add", action="store_true", help="keep the rows of other parts in the result file")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    parser.add_argument("--direct", action="store_true", help="without nginx in front, even where it is installed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is then ended
    parts, seconds = arguments.parts, arguments.seconds
    began = time.perf_counter()
    results: dict[str, Any] = kept(arguments.add) | {"nginx": not arguments.direct and nginx_program() is not None}
    results["load_average_before"] = [round(x, 1) for x in os.getloadavg()]

    def note(name: str, found: Any) -> None:
        results[name] = found
        print(f"{time.perf_counter() - began:.0f} s: {name} {json.dumps(found)}", flush=True)

    stream = Stream(fresh_queries())
    with harness.open_folder() as folder:
        corpus, flags, data = folder / "corpus.jsonl", folder / "flags.json", arguments.data or folder / "data"
        results["passages"] = write_corpus(corpus, arguments.passages)
        write_flags(flags, True)
        env = {"BRAID_FLAGS_FILE": str(flags), "BRAID_TRUSTED_PROXIES": "127.0.0.1"}
        filling = [] if (data / "opensearch").is_dir() else [str(corpus), "--whole"]
        with harness.braid_up(*filling, env=env, data=data) as up, ExitStack() as stack:
            load = Load(stack.enter_context(chain(up, arguments.direct)), stream, flags)
            sustained = arguments.rate or 0.0
            if "matrix" in parts:
                sustained = matrix(load, seconds, note)
            if "answers" in parts:
                answers(load, seconds, note)
            if "hits" in parts:
                hits(load, seconds, note)
            if "overload" in parts:
                overload(load, sustained, results, arguments.overload_seconds, note)
            if "ingest" in parts:
                while_ingesting(load, 3 * seconds, "strict", note)
            place = load.place
        if "ingest" in parts:
            env["BRAID_CACHE_STALENESS_MS"] = str(STALE_MS)
            with harness.braid_up(env=env, data=data) as up, ExitStack() as stack:
                load = Load(stack.enter_context(chain(up, arguments.direct)), stream, flags)
                load.place = place
                while_ingesting(load, 3 * seconds, f"stale for {STALE_MS} ms at most", note)
    results["load_average_after"] = [round(x, 1) for x in os.getloadavg()]
    results["took_s"] = round(time.perf_counter() - began)
    if not arguments.try_out:
        harness.write_result("load", METHOD, results)


if __name__ == "__main__":
    main()
