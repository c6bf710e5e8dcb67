"""Who puts a service under load, and what is seen of it: queries, a client, the machine, figures. See load.md."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
import orjson
import psutil
from geventhttpclient import HTTPClient

SEED, REPEATED = 7, 0.68
STAGES = ("query_encode_ms", "lexical_ms", "vector_ms", "fetch_ms", "rerank_ms", "total_ms")
HEADERS = {"Content-Type": "application/json"}


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
        self._begun = self.spent()

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

    def spent(self) -> dict[str, float]:
        """Seconds of processor by part so far; `clock` is the time of day."""
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
        before, self._begun = self._begun, self.spent()
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
