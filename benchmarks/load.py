"""What the service bears: `python benchmarks/load.py`. Method and choices: load.md."""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import gevent.lock
import harness
import orjson
import psutil
from geventhttpclient import HTTPClient

from app.gateway.flag_file import SHIPPED

SEED, REPEATED = 7, 0.68
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
CACHES = ("response_cache", "near_cache", "embedding_cache", "rerank_cache")
STAGES = ("query_encode_ms", "lexical_ms", "vector_ms", "fetch_ms", "rerank_ms", "total_ms")
BUDGET_MS, STALE_MS, DOCUMENTS_PER_SECOND = 1000, 5000, 1.0
CONNECTIONS = 900
HEADERS = {"Content-Type": "application/json"}
METHOD = (
    "benchmarks/load.md. One `braid up`, its defaults (one worker, late interaction as the reranker), loopback. "
    "Client: geventhttpclient in one process. Queries: a stream with Zipf's law (exponent 1 over those seen before, in "
    f"the order of their first coming), {REPEATED:.0%} of the requests repeat one that came before, the rest are new "
    f"(seed {SEED}). Times in ms; client_ms is what the client waited, the stages are the service's own timings, of "
    "answers that were made and not cached. *_cores: processor cores that the part used meanwhile; others_cores: what "
    "everything else on the machine used."
)


@dataclass(slots=True)
class Sample:
    """One request: how long the caller waited, and what it was told. `status` 0: the connection failed."""

    ms: float
    status: int
    cache: str = ""
    stale: bool = False
    timings: Mapping[str, float] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    problem: str = ""


class Stream:
    """The queries, in an order that depends on the seed alone."""

    def __init__(self, fresh: Iterator[str], seed: int = SEED) -> None:
        self._fresh = fresh
        self._random = random.Random(seed)
        self._seen: list[str] = []
        self._made: list[str] = []

    def at(self, place: int) -> str:
        """The query at `place`; earlier ones are kept, so that two cells can be given the same."""
        while len(self._made) <= place:
            if self._seen and self._random.random() < REPEATED:
                rank = int(math.exp(self._random.random() * math.log(len(self._seen) + 1))) - 1
                self._made.append(self._seen[rank])
            else:
                self._seen.append(next(self._fresh))
                self._made.append(self._seen[-1])
        return self._made[place]

    def popular(self, rank: int) -> str:
        """The query that is asked `rank`-most often."""
        return self._seen[rank]


def fresh_queries() -> Iterator[str]:
    """Real questions of all sets at hand, then short sentences of their passages; each once."""
    found: dict[str, None] = {}
    for name in ("squad2dev", "covidqa", "scifact", "awsdocs", "cisi", "cranfield"):
        for path in (harness.SETS / name / "queries.jsonl.gz", harness.SETS / name / "unanswerable.jsonl.gz"):
            if path.is_file():
                with gzip.open(path, "rt", encoding="utf-8") as lines:
                    found |= dict.fromkeys(" ".join(json.loads(line)["text"].split()) for line in lines)
    texts = [text for text in found if 2 <= len(text.split()) <= 40]
    random.Random(SEED).shuffle(texts)
    yield from texts
    for name in ("squad2dev", "covidqa", "scifact", "awsdocs"):
        if (harness.SETS / name / "corpus.jsonl.gz").is_file():
            for row in harness.corpus(name):
                for sentence in re.split(r"(?<=[.?!])\s+", row["text"]):
                    if 4 <= len(sentence.split()) <= 14 and sentence not in found:
                        found[sentence] = None
                        yield " ".join(sentence.split())


def write_corpus(path: Path, size: int) -> int:
    """The passages of the two question sets; how many."""
    rows = [row for name in ("covidqa", "squad2dev") for row in harness.corpus(name)][:size]
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps({"document_id": row["_id"], "title": row["title"], "text": row["text"]}) + "\n")
    return len(rows)


def write_flags(path: Path, caches: bool) -> None:
    """The shipped flags with all caches on or off; the service reads them within seconds."""
    flags = json.loads(SHIPPED.read_text(encoding="utf-8"))
    for name in CACHES:
        flags["flags"][name]["defaultVariant"] = "on" if caches else "off"
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(flags), encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)


class Caller:
    """Sends requests to one service over connections that are kept."""

    def __init__(self, url: str, connections: int) -> None:
        self._client = HTTPClient.from_url(url, concurrency=connections, network_timeout=60, connection_timeout=10)

    def post(self, path: str, body: Mapping[str, Any], since: float | None = None) -> Sample:
        """Send one; its time begins at `since` (of `time.perf_counter`), or now."""
        since = time.perf_counter() if since is None else since
        try:
            response = self._client.request("POST", path, orjson.dumps(body), HEADERS)
            status, data = int(response.status_code), bytes(response.read())
        except Exception as error:  # noqa: BLE001 - whatever the library raises is an error that the caller saw
            return Sample((time.perf_counter() - since) * 1000, 0, problem=type(error).__name__)
        ms = (time.perf_counter() - since) * 1000
        found = orjson.loads(data)
        if status != 200:
            return Sample(ms, status, problem=f"{found.get('type', '')}: {found.get('detail', '')}"[:160])
        degraded = tuple(f"{item['stage']}: {item['reason'].partition(':')[0]}" for item in found.get("degraded", ()))
        stale = found.get("cache_stale_ms") is not None
        return Sample(ms, status, found.get("cache", ""), stale, found.get("timings", {}), degraded)

    def close(self) -> None:
        self._client.close()


class Machine:
    """What the processes of `braid up`, this one, and all others use of the machine."""

    def __init__(self, pid: int) -> None:
        self._up = psutil.Process(pid)
        self._begun = self._now()

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for process in self._up.children(recursive=True):
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            kind = "service" if "app.cli serve" in command else ""
            kind = kind or ("opensearch" if "java" in command.split(" ")[0] else "")
            yield kind or ("valkey" if "valkey-server" in command else "other"), process

    def memory_mib(self) -> dict[str, float]:
        """Resident memory by part."""
        sizes: Counter[str] = Counter()
        for kind, process in self._processes():
            try:
                sizes[kind] += process.memory_info().rss
            except psutil.Error:
                continue
        return {kind: round(size / 2**20, 1) for kind, size in sorted(sizes.items()) if kind != "other"}

    def _now(self) -> dict[str, float]:
        times = psutil.cpu_times()
        used = {"clock": time.monotonic(), "busy": sum(times[:3]) + sum(times[5:8]), "client": time.process_time()}
        for kind, process in self._processes():
            try:
                own = process.cpu_times()
            except psutil.Error:
                continue
            used[kind] = used.get(kind, 0.0) + own.user + own.system
        return used

    def cores(self) -> dict[str, float]:
        """Cores in use since the last call, by part."""
        before, self._begun = self._begun, self._now()
        passed = self._begun["clock"] - before["clock"]
        used = {kind: (self._begun[kind] - before.get(kind, 0.0)) / passed for kind in self._begun if kind != "clock"}
        busy = used.pop("busy")
        return {f"{kind}_cores": round(value, 2) for kind, value in sorted(used.items()) if kind != "other"} | {
            "others_cores": round(max(0.0, busy - sum(used.values())), 2)
        }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99, and how many; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    p99 = round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3)
    return {**harness.percentiles(ordered), "p99": p99, "max": round(ordered[-1], 1)}


def figures(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """What a cell's requests tell."""
    good = [item for item in samples if item.status == 200]
    made = [item for item in good if item.cache in {"miss", "off"}]
    outcomes = Counter(item.cache for item in good)
    found: dict[str, Any] = {
        "requests_per_second": round(len(good) / seconds, 1),
        "by_status": {str(status): count for status, count in sorted(Counter(s.status for s in samples).items())},
        "client_ms": spread([item.ms for item in good]),
        "cache_share": {name: round(count / len(good), 3) for name, count in sorted(outcomes.items())},
        "stale_share": round(sum(item.stale for item in good) / max(1, len(good)), 3),
        "hit_ms": spread([item.ms for item in good if item.cache == "exact"]),
        "near_ms": spread([item.ms for item in good if item.cache == "near"]),
        "made_ms": spread([item.ms for item in made]),
        "stages": {
            name: spread(times) for name in STAGES if (times := [s.timings[name] for s in made if name in s.timings])
        },
    }
    degraded = Counter(reason for item in good for reason in item.degraded)
    problems = Counter(item.problem for item in samples if item.problem and item.status != 429)
    if degraded:
        found["degraded"] = dict(degraded.most_common(8))
    if problems:
        found["problems"] = dict(problems.most_common(8))
    return {name: value for name, value in found.items() if value is not None}


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

    def open(self, rate: float, seconds: float, **body: Any) -> dict[str, Any]:
        """Requests that come at random, `rate` a second, whatever became of those before."""
        caller, samples, sizes = Caller(self.url, CONNECTIONS), list[Sample](), list[dict[str, float]]()
        lags: list[float] = []
        arrivals = random.Random(SEED)
        self.machine.cores()
        under_way = gevent.lock.BoundedSemaphore(CONNECTIONS)

        def one(place: int, due: float) -> None:
            with under_way:
                samples.append(caller.post("/v1/search", {"query": self.stream.at(place), **body}, due))

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
                best = max(best, found["requests_per_second"])
            note(f"search, {clients} clients, caches {'on' if wanted else 'off'}", found)
        load.place += used
    for wanted in (False, True):
        load.caches(wanted)
        note(
            f"answer (quoted), 4 clients, caches {'on' if wanted else 'off'}",
            load.closed(4, seconds, path="/v1/answer"),
        )
    load.place += 10_000
    return best


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=12, help="of each cell")
    parser.add_argument("--overload-seconds", type=float, default=300)
    parser.add_argument("--parts", nargs="+", default=["matrix", "hits", "overload", "ingest"])
    parser.add_argument("--data", type=Path, help="a data folder that is kept, so that a second run ingests nothing")
    parser.add_argument("--rate", type=float, help="the sustainable requests a second, where the matrix is left out")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    parts, seconds = arguments.parts, arguments.seconds
    began = time.perf_counter()
    results: dict[str, Any] = {"load_average_before": [round(x, 1) for x in os.getloadavg()]}

    def note(name: str, found: Any) -> None:
        results[name] = found
        print(f"{time.perf_counter() - began:.0f} s: {name} {json.dumps(found)}", flush=True)

    stream = Stream(fresh_queries())
    with harness.open_folder() as folder:
        corpus, flags, data = folder / "corpus.jsonl", folder / "flags.json", arguments.data or folder / "data"
        results["passages"] = write_corpus(corpus, arguments.passages)
        write_flags(flags, True)
        env = {"BRAID_FLAGS_FILE": str(flags)}
        with harness.braid_up(str(corpus), "--whole", env=env, data=data) as up:
            load = Load(up, stream, flags)
            sustained = arguments.rate or 0.0
            if "matrix" in parts:
                sustained = matrix(load, seconds, note)
            if "hits" in parts:
                hits(load, seconds, note)
            if "overload" in parts:
                load.caches(True)
                for name, wanted, part in (("as shipped", True, 1.0), ("caches off", False, 0.3)):
                    load.caches(wanted)
                    rate = (
                        sustained
                        if wanted
                        else results.get("search, 8 clients, caches off", {}).get("requests_per_second", sustained / 3)
                    )
                    found = load.open(2 * rate, arguments.overload_seconds * part, timeout_ms=BUDGET_MS)
                    note(f"overload, {name}", found)
            if "ingest" in parts:
                while_ingesting(load, 3 * seconds, "strict", note)
            place = load.place
        if "ingest" in parts:
            env["BRAID_CACHE_STALENESS_MS"] = str(STALE_MS)
            with harness.braid_up(env=env, data=data) as up:
                load = Load(up, stream, flags)
                load.place = place
                while_ingesting(load, 3 * seconds, f"stale for {STALE_MS} ms at most", note)
    results["load_average_after"] = [round(x, 1) for x in os.getloadavg()]
    results["took_s"] = round(time.perf_counter() - began)
    if not arguments.try_out:
        harness.write_result("load", METHOD, results)


if __name__ == "__main__":
    main()
