"""Three callers send as much as they can: what searches and probes notice. Method: starvation.md."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import random
import signal
import sys
import threading
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import harness
import httpx2
import psutil
from load_client import fresh_queries, spread

from app.config import load_settings
from app.gateway.keys import KeyRing
from app.store.client import Cluster

SECRET = "the-secret-that-keys-of-this-benchmark-have"  # noqa: S105 - of nothing
OPERATOR = "the-operators-key-of-this-benchmark"
SEARCHES_PER_SECOND, PROBE_S, DOCUMENTS_PER_SECOND = 5.0, 0.1, 50
JSON_BYTES, JSON_DOCUMENT = 60_000_000, 2_300_000
UPLOADS, UPLOAD_BYTES = 8, 49_000_000
METHOD = (
    "benchmarks/starvation.md. One `braid up`, its defaults (one worker), loopback. Three callers, each with a key of "
    f"its own: one sends {JSON_BYTES / 1e6:.0f} MB of JSON in documents of {JSON_DOCUMENT / 1e6:.1f} MB (and first all "
    f"of it as one), one {DOCUMENTS_PER_SECOND} small documents a second, one {UPLOADS} files of "
    f"{UPLOAD_BYTES / 1e6:.0f} MB. Meanwhile {SEARCHES_PER_SECOND:.0f} searches a second, none of them cached, and a "
    "probe of /healthz each 0.1 s, over a connection that is kept. Times in ms, memory in MiB, *_cores in cores."
)


def prose(rows: list[dict[str, Any]], size: int, seed: int) -> str:
    """Real sentences, shuffled by paragraph so that no two documents are the same."""
    order = random.Random(seed)
    found: list[str] = []
    length = 0
    while length < size:
        text = str(order.choice(rows)["text"])
        found.append(text)
        length += len(text) + 2
    return "\n\n".join(found)[:size]


def word_file(text: str, size: int) -> bytes:
    """A DOCX of `size` bytes: some text, and a picture that can't be compressed."""
    paragraphs = "".join(f"<w:p><w:r><w:t>{part}</w:t></w:r></w:p>" for part in text.replace("&", "").split("\n\n"))
    space = "http://schemas.openxmlformats.org"
    document = (
        f'<?xml version="1.0"?><w:document xmlns:w="{space}/wordprocessingml/2006/main">'
        f"<w:body>{paragraphs.replace('<3', '')}</w:body></w:document>"
    )
    types = (
        f'<?xml version="1.0"?><Types xmlns="{space}/package/2006/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/><Default Extension="png" ContentType="image/png"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>'
    )
    links = (
        f'<?xml version="1.0"?><Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{space}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("_rels/.rels", links)
        archive.writestr("word/document.xml", document)
        archive.writestr("word/media/image1.png", random.Random(1).randbytes(max(0, size - out.tell() - 2000)))
    return out.getvalue()


class Sender:
    """One caller's requests, counted."""

    def __init__(self, url: str, key: str, stop: Event) -> None:
        self.client = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300, trust_env=False
        )
        self.stop = stop
        self.statuses: Counter[str] = Counter()
        self.first_ms: list[float] = []
        self._lock = threading.Lock()

    def send(self, *, again: bool, **request: Any) -> str:
        """Post a document; after a 429 again, when its Retry-After is over. The last status."""
        while True:
            began = time.perf_counter()
            try:
                answer = self.client.post("/v1/documents", **request)
                status, wait = str(answer.status_code), float(answer.headers.get("Retry-After", 1))
            except httpx2.HTTPError as error:
                status, wait = type(error).__name__, 1.0
            with self._lock:
                self.statuses[status] += 1
                self.first_ms.append((time.perf_counter() - began) * 1000)
            if not again or status in {"200", "202", "413", "422"} or self.stop.wait(wait):
                return status


def upload(rows: list[dict[str, Any]], number: int) -> tuple[str, bytes]:
    """A file's name and its bytes; each fourth is text through and through, more than is taken."""
    text = prose(rows, 200_000, number)
    if number % 4 < 3:
        return f"book-{number}.docx", word_file(text, UPLOAD_BYTES)
    return f"book-{number}.txt", (text * (UPLOAD_BYTES // len(text) + 1)).encode()[:UPLOAD_BYTES]


def send_all(url: str, keys: Mapping[str, str], sets: str, go: Event, stop: Event, results: Queue[Any]) -> None:
    """The three callers, in a process of their own; what they send is made before they begin."""
    harness.SETS = Path(sets)
    rows = harness.corpus("squad2dev")
    files = [upload(rows, number) for number in range(UPLOADS)]
    large = [prose(rows, JSON_DOCUMENT, number) for number in range(JSON_BYTES // JSON_DOCUMENT)]
    senders = {name: Sender(url, keys[name], stop) for name in ("json", "small", "files")}

    def texts() -> None:
        whole = {"document_id": "all-of-it", "text": "x" * JSON_BYTES}
        senders["json"].send(again=False, json=whole)
        for number, text in enumerate(large):
            senders["json"].send(again=True, json={"document_id": f"large-{number}", "text": text})
            if stop.is_set():
                return

    def small(threads: ThreadPoolExecutor) -> None:
        due = time.perf_counter()
        for number in itertools.count():
            if stop.wait(max(0.0, due - time.perf_counter())):
                return
            body = {"document_id": f"small-{number}", "text": prose(rows, 600, number)}
            threads.submit(senders["small"].send, again=False, json=body)
            due += 1 / DOCUMENTS_PER_SECOND

    results.put("ready")
    go.wait()
    with ThreadPoolExecutor(80) as threads:
        threads.submit(texts)
        for file in files:
            threads.submit(senders["files"].send, again=True, files={"file": file})
        small(threads)
    results.put(
        {
            name: {"by_status": dict(sorted(sender.statuses.items())), "answer_ms": spread(sender.first_ms)}
            for name, sender in senders.items()
        }
    )


class Watch:
    """Searches and probes at a fixed rate, and what the service's processes take."""

    def __init__(self, up: Mapping[str, Any], key: str, queries: Iterator[str]) -> None:
        self.url, self.key, self.queries = up["url"], key, queries
        self.top = psutil.Process(int(up["pid"]))

    def run(self, seconds: float) -> dict[str, Any]:
        """Measure for so long."""
        ends = time.perf_counter() + seconds
        statuses: Counter[str] = Counter()
        degraded: Counter[str] = Counter()
        searches: list[float] = []
        stages: dict[str, list[float]] = defaultdict(list)
        probes: list[float] = []
        memory: list[dict[str, float]] = []
        headers = {"Authorization": f"Bearer {self.key}"}
        client = httpx2.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

        def search(query: str, due: float) -> None:
            answer = client.post("/v1/search", json={"query": query, "cache": False})
            searches.append((time.perf_counter() - due) * 1000)
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                found = answer.json()
                degraded.update(item["stage"] for item in found["degraded"])
                for stage, ms in found["timings"].items():
                    stages[stage].append(ms)

        def probe(due: float) -> None:
            with httpx2.Client(base_url=self.url, timeout=60, trust_env=False) as prober:
                while due < ends:
                    time.sleep(max(0.0, due - time.perf_counter()))
                    began = time.perf_counter()
                    if prober.get("/healthz").status_code != 200:
                        statuses["healthz failed"] += 1
                    probes.append((time.perf_counter() - began) * 1000)
                    due = max(due + PROBE_S, time.perf_counter())

        def weigh() -> None:
            while time.perf_counter() < ends:
                memory.append(self._memory())
                time.sleep(1)

        before = self._cpu()
        began = time.perf_counter()
        arrivals = random.Random(7)
        with ThreadPoolExecutor(64) as threads:
            others = [threads.submit(probe, began), threads.submit(weigh)]
            due = began
            waiting = []
            while due < ends:
                time.sleep(max(0.0, due - time.perf_counter()))
                waiting.append(threads.submit(search, next(self.queries), due))
                due += arrivals.expovariate(SEARCHES_PER_SECOND)
            for future in (*waiting, *others):
                future.result()
        client.close()
        took = time.perf_counter() - began
        after = self._cpu()
        return {
            "searches": dict(sorted(statuses.items())),
            "degraded": dict(degraded),
            "search_ms": spread(searches),
            "stage_ms": {stage: spread(times) for stage, times in sorted(stages.items())},
            "healthz_ms": spread(probes),
            "healthz_over_100_ms": sum(ms > 100 for ms in probes),
            "memory_mib": {kind: max(item[kind] for item in memory) for kind in memory[0]},
            "cores": {kind: round((after[kind] - before.get(kind, 0.0)) / took, 2) for kind in sorted(after)},
        }

    def _parts(self) -> Iterator[tuple[str, psutil.Process]]:
        for process in self.top.children(recursive=True):
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "java" in command.split(" ")[0]:
                yield "opensearch", process
            elif "app.cli serve" in command:
                yield "service", process
            elif "ingest_worker" in command:
                yield "ingest", process
            elif "multiprocessing" in command:
                yield "parsers", process

    def _memory(self) -> dict[str, float]:
        """Of the service's processes: resident, and resident with shared pages counted once."""
        resident = own = 0
        for part, process in self._parts():
            try:
                if part != "opensearch":
                    found = process.memory_full_info()
                    resident, own = resident + found.rss, own + found.pss
            except psutil.Error:
                continue
        return {"resident": round(resident / 2**20, 1), "proportional": round(own / 2**20, 1)}

    def _cpu(self) -> dict[str, float]:
        used: Counter[str] = Counter()
        for part, process in self._parts():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            used[part] += times.user + times.system
        return dict(used)


@contextmanager
def sending(up: Mapping[str, Any], keys: Mapping[str, str], done: dict[str, Any]) -> Iterator[None]:
    """The three callers at work; what they were told is in `done` afterwards."""
    context = multiprocessing.get_context("spawn")
    go, stop, results = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=send_all, args=(up["url"], dict(keys), str(harness.SETS), go, stop, results))
    process.start()
    try:
        results.get(timeout=400)
        go.set()
        yield
    finally:
        stop.set()
        done.update(results.get(timeout=400))
        process.join()


def embedded(up: Mapping[str, Any]) -> float:
    """Passages that have been embedded for documents over HTTP: nearly all that accepted ingest costs."""
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    text = httpx2.get(f"{up['url']}/metrics", headers=headers, timeout=60, trust_env=False).text
    return sum(float(line.split(" ")[1]) for line in text.splitlines() if line.startswith("ingest_passages_total "))


def with_service(
    corpus: Path, work: Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]]
) -> dict[str, Any]:
    env = {"BRAID_KEYS_SECRET": SECRET, "BRAID_API_KEY": OPERATOR}
    with harness.braid_up(str(corpus), "--whole", env=env) as up:
        settings = load_settings(opensearch_url=up["opensearch_url"], keys_secret=SECRET)
        cluster = Cluster(settings.opensearch)
        ring = KeyRing(settings.access, cluster)
        roles = {"search": ["search"], "json": ["ingest"], "small": ["ingest"], "files": ["ingest"]}
        keys = {name: ring.create(name=name, tenant="default", roles=role)[1] for name, role in roles.items()}
        cluster.close()
        return work(up, keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=90, help="of each part")
    parser.add_argument("--sets", type=Path, default=harness.SETS, help="where the data sets lie")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness.SETS = arguments.sets
    seconds = arguments.seconds
    queries = fresh_queries()
    load_before = psutil.getloadavg()

    def alone(up: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
        done: dict[str, Any] = {}
        with sending(up, keys, done):
            time.sleep(seconds)
            count = embedded(up)
        return {"callers": done, "passages_per_second": round(count / seconds, 1)}

    def beside(up: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
        watch = Watch(up, keys["search"], queries)
        watch.run(10)  # warm
        idle = watch.run(seconds)
        done: dict[str, Any] = {}
        with sending(up, keys, done):
            found = watch.run(seconds)
            count = embedded(up)
        return {
            "idle": idle,
            "under_writes": found | {"callers": done, "passages_per_second": round(count / seconds, 1)},
        }

    with harness.open_folder() as folder:
        corpus = folder / "corpus.jsonl"
        with corpus.open("w", encoding="utf-8") as out:
            for row in harness.corpus("squad2dev")[: arguments.passages]:
                out.write(json.dumps({"document_id": row["_id"], "title": row["title"], "text": row["text"]}) + "\n")
        results = with_service(corpus, beside)
        results["writes_alone"] = with_service(corpus, alone)
    busy, idle, free = results["under_writes"], results["idle"], results["writes_alone"]
    results["verdict"] = {
        "searches_refused": sum(n for status, n in busy["searches"].items() if status != "200"),
        "search_p95_times_idle": round(busy["search_ms"]["p95"] / idle["search_ms"]["p95"], 2),
        "healthz_max_ms": busy["healthz_ms"]["max"],
        "ingest_share": round(busy["passages_per_second"] / max(0.1, free["passages_per_second"]), 2),
        "resident_mib": busy["memory_mib"]["resident"],
    }
    results["load_average"] = {"before": load_before, "after": psutil.getloadavg()}
    if not arguments.try_out:
        harness.write_result("starvation", METHOD, results)
    else:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
