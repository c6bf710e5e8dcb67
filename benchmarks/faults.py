"""What callers see while a part is down: `python benchmarks/faults.py`. Method and choices: faults.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import harness
import httpx2
import psutil
from proxy import FaultyProxy, http_answer

sys.path.insert(0, str(harness.ROOT))
from app.config import load_settings
from app.embedded.node import EmbeddedCluster, start_cluster
from app.embedded.valkey import start_valkey
from tests.reranker_model import write_cross_encoder

BUDGET_MS, FAULT_S, WHOLE_S, LONGEST_RECOVERY_S = 1000, 6.0, 2.0, 30.0
PER_SECOND, KNOWN, PASSAGES = 8, 8, 120
SLOW_S = 0.4
KINDS = ("cached", "made", "new", "answer")
LLM = "benchmark-llm"
METHOD = (
    "benchmarks/faults.md. The parts run as real processes on loopback (OpenSearch, Valkey, `python -m reranker`, an "
    "endpoint that streams chat completions), the service reaches each through a TCP proxy that fails as told, or the "
    f"process gets a signal. Meanwhile {PER_SECOND} requests a second, timeout_ms {BUDGET_MS}: a cached search, a "
    "search made anew (cache: false, compared with what it found before), a search for something new, an answer. Each "
    f"fault lasts {FAULT_S:.0f} s, or until a killed process runs again. noticed_s: until the first answer that is not "
    "whole. breaker_s: until a breaker is open. recovered_s: from the end of the fault until the first of the answers "
    "that are all whole from there on. Times in ms unless they end in _s."
)


@dataclass(slots=True)
class Seen:
    """One request: when it was sent, how long it took, what came. `status` 0: no answer at all."""

    kind: str
    at: float
    ms: float
    status: int
    cache: str = ""
    degraded: tuple[str, ...] = ()
    model: str = ""
    ids: tuple[str, ...] = ()
    problem: str = ""
    whole: bool = False


class Trickle:
    """A steady stream of requests, and what is known of their answers in good days."""

    def __init__(self, url: str, queries: Sequence[str], budget_ms: int = BUDGET_MS) -> None:
        self._queries, self._budget_ms = queries, budget_ms
        self._client = httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False)
        self.seen: list[Seen] = []
        self.breakers: list[tuple[float, dict[str, float]]] = []
        self._usual: dict[str, tuple[str, ...]] = {}
        self.fused: dict[str, tuple[str, ...]] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: list[asyncio.Task[Any]] = []

    async def learn(self) -> None:
        """What each query finds when all is well; waits until the service answers whole."""
        until = time.monotonic() + 60
        for query in self._queries:
            while not (found := await self._post("made", "/v1/search", query, cache=False)).ids or found.degraded:
                assert time.monotonic() < until, found
                await asyncio.sleep(0.3)
            self._usual[query] = found.ids
            self.fused[query] = (await self._post("made", "/v1/search", query, cache=False, rerank=False)).ids
            await self._post("cached", "/v1/search", query)

    async def _post(self, kind: str, path: str, query: str, **body: Any) -> Seen:
        at = time.monotonic()
        try:
            answer = await self._client.post(path, json={"query": query, "timeout_ms": self._budget_ms, **body})
            found = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            return Seen(kind, at, (time.monotonic() - at) * 1000, 0, problem=type(error).__name__)
        ms = (time.monotonic() - at) * 1000
        if answer.status_code != 200:
            return Seen(kind, at, ms, answer.status_code, problem=str(found.get("type", "")).rpartition(":")[2])
        degraded = tuple(f"{item['stage']}: {item['reason'].partition(':')[0]}" for item in found["degraded"])
        ids = tuple(item["id"] for item in found["results"])
        return Seen(kind, at, ms, 200, found["cache"], degraded, found.get("model", ""), ids)

    async def one(self, kind: str) -> None:
        """Send a request of a kind, and note what came."""
        number = next(self._numbers)
        query = self._queries[number // len(KINDS) % len(self._queries)]
        if kind == "cached":
            seen = await self._post(kind, "/v1/search", query)
            seen.whole = seen.cache == "exact"
        elif kind == "made":
            seen = await self._post(kind, "/v1/search", query, cache=False)
            seen.whole = seen.ids == self._usual[query]
            if seen.status == 200 and not seen.whole:
                seen.problem = "fused order" if seen.ids == self.fused[query] else "other results"
        elif kind == "new":
            seen = await self._post(kind, "/v1/search", f"{query} ({number} {time.time_ns()})")
            seen.whole = seen.cache == "miss"
        else:
            seen = await self._post(kind, "/v1/answer", query, cache=False)
            seen.whole = seen.model == LLM
        seen.whole = seen.whole and seen.status == 200 and not seen.degraded
        self.seen.append(seen)

    async def _send(self) -> None:
        due = time.monotonic()
        for kind in itertools.cycle(KINDS):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.one(kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / PER_SECOND

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                lines = (await self._client.get("/metrics")).text.splitlines()
                states = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "breaker_state{" in line}
                self.breakers.append((time.monotonic(), states))
            await asyncio.sleep(0.25)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Requests go out while the block runs; all have ended afterwards."""
        self._running = [asyncio.create_task(self._send()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, *self._tasks, return_exceptions=True)

    async def until_whole(self, since: float, longest_s: float = LONGEST_RECOVERY_S) -> float | None:
        """Seconds from `since` to the first request after which all answers are whole; None: never, in that time."""
        while True:
            await asyncio.sleep(0.1)
            later = [item for item in self.seen if item.at >= since]
            broken = [item.at for item in later if not item.whole]
            first = min((item.at for item in later if item.at > max(broken, default=since)), default=None)
            now = time.monotonic()
            if first is not None and now - first > WHOLE_S:
                return round(first - since, 2)
            if now - since > longest_s:
                return None

    async def close(self) -> None:
        await self._client.aclose()


@dataclass
class Row:
    """One fault: how it begins and ends."""

    part: str
    name: str
    begin: Callable[[], Any]
    end: Callable[[], Any] | None
    lasts_s: float = FAULT_S
    fields: dict[str, Any] = field(default_factory=dict)


async def observe(trickle: Trickle, row: Row) -> dict[str, Any]:
    """Run one row."""
    trickle.seen.clear()
    trickle.breakers.clear()
    async with trickle.running():
        await asyncio.sleep(1.0)
        before = [item for item in trickle.seen if not item.whole]
        began = time.monotonic()
        await asyncio.to_thread(row.begin)
        await asyncio.sleep(row.lasts_s)
        if row.end is not None:
            await asyncio.to_thread(row.end)
        ended = time.monotonic()
        recovered = await trickle.until_whole(ended) if row.end is not None else None
    during = [item for item in trickle.seen if began <= item.at < ended]
    # a request that was under way when the fault began has seen it, too
    affected = [item for item in trickle.seen if not item.whole and began <= item.at + item.ms / 1000]
    opened = [at for at, states in trickle.breakers if at >= began and max(states.values(), default=0) >= 1]
    return {
        "fault_s": round(ended - began, 1),
        "requests": len(during),
        "saw": {kind: _saw([item for item in during if item.kind == kind]) for kind in KINDS},
        "ms": {
            "median": round(statistics.median(item.ms for item in during)),
            "worst": round(max(item.ms for item in during)),
        },
        "noticed_s": round(min(i.at + i.ms / 1000 for i in affected) - began, 2) if affected else None,
        "breaker_s": round(min(opened) - began, 2) if opened else None,
        "recovered_s": recovered,
        **(
            {"afterwards": _all_that_was_not_whole(trickle.seen, ended)}
            if row.end is not None and recovered is None
            else {}
        ),
        **({"not_whole_before": len(before)} if before else {}),
        **row.fields,
    }


def _saw(items: Sequence[Seen]) -> dict[str, int]:
    """What callers of a kind saw, in words, by count."""
    words: Counter[str] = Counter()
    for item in items:
        if item.status != 200:
            words[f"{item.status or 'no answer'} {item.problem}"] += 1
            continue
        parts = [*item.degraded]
        if item.kind in {"cached", "new"} and item.cache not in {"exact", "miss"}:
            parts.append(f"cache {item.cache}")
        if item.kind == "answer" and item.model != LLM:
            parts.append("quoted")
        if item.problem:
            parts.append(item.problem)
        words["200 " + (", ".join(parts) or "whole")] += 1
    return dict(words.most_common())


def _all_that_was_not_whole(seen: Sequence[Seen], since: float) -> dict[str, dict[str, int]]:
    later = [item for item in seen if item.at >= since and not item.whole]
    return {kind: found for kind in KINDS if (found := _saw([item for item in later if item.kind == kind]))}


# the parts


class ChatEndpoint:
    """Streams a completion that cites the first passage, `pieces` times, with a pause between."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                self.close_connection = True
                with contextlib.suppress(OSError):
                    for number in range(owner.pieces):
                        self._event({"content": f"So say the passages, part {number} [1]. "}, None)
                        time.sleep(owner.pause_s)
                    self._event({}, "stop")
                    self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, delta: dict[str, str], finish: str | None) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": LLM, "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.pieces, self.pause_s = 2, 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Process:
    """A part that can be killed and started again; `start` gives its process id and port."""

    def __init__(self, proxy: FaultyProxy, start: Callable[[], tuple[int, int]]) -> None:
        self._proxy, self._start = proxy, start
        self.pid, self._proxy.target = start()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def again(self) -> None:
        self.pid, self._proxy.target = self._start()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Parts:
    """All parts but the service, behind proxies."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.settings = load_settings()
        self._nodes: list[EmbeddedCluster] = []
        self.proxies = {
            name: stack.enter_context(FaultyProxy(9)) for name in ("opensearch", "redis", "reranker", "llm")
        }
        self._model = write_cross_encoder(folder / "reranker")
        self.chat = ChatEndpoint()
        stack.callback(self.chat.close)
        self.proxies["llm"].target = self.chat.port
        starts = {"opensearch": self._opensearch, "redis": self._redis, "reranker": self._reranker}
        self.processes = {name: Process(self.proxies[name], start) for name, start in starts.items()}

    def env(self) -> dict[str, str]:
        """Where the service finds them."""
        ports = {name: proxy.port for name, proxy in self.proxies.items()}
        return {
            "BRAID_OPENSEARCH_URL": f"http://127.0.0.1:{ports['opensearch']}",
            "BRAID_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
            "BRAID_RERANKER_URL": f"http://127.0.0.1:{ports['reranker']}",
            "BRAID_LLM_URL": f"http://127.0.0.1:{ports['llm']}",
            "BRAID_LLM_MODEL": LLM,
        }

    def _opensearch(self) -> tuple[int, int]:
        for node in self._nodes:
            node.stop()
        node = start_cluster(self.settings, data_dir=self._folder / "node", heap_mb=512)
        self._stack.callback(node.stop)
        self._nodes.append(node)
        return node.pids[0], node.ports[0]

    def _redis(self) -> tuple[int, int]:
        server = start_valkey(self.settings, data_dir=self._folder / "valkey")
        self._stack.callback(server.stop)
        return server.pid, server.port

    def _reranker(self) -> tuple[int, int]:
        command = [sys.executable, "-m", "reranker", "--model", str(self._model), "--port", "0", "--provider", "cpu"]
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, cwd=harness.ROOT)
        self._stack.callback(_end, process)
        assert process.stdout is not None
        return process.pid, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    process.terminate()
    process.wait(30)


# the rows

HTML = http_answer(b"<html><body><h1>It works!</h1></body></html>", "text/html")
BROKEN = http_answer(b'{"took": 3, "hits": {"total": {"val')
OTHER = http_answer(b'{"message": "hello", "results": 5, "hits": [], "choices": {}}')


def rows_of(parts: Parts) -> Iterator[Row]:
    """Each part x each fault."""
    for part, proxy in parts.proxies.items():

        def failing(
            fault: str, proxy: FaultyProxy = proxy, **how: Any
        ) -> tuple[Callable[[], None], Callable[[], None]]:
            return (lambda: proxy.fail(fault, **how)), proxy.heal

        yield Row(part, "connections refused", *failing("refuse"))
        yield Row(part, "hangs: takes all, says nothing", *failing("hang"))
        yield Row(part, f"slow: each answer {SLOW_S * 1000:.0f} ms later", *failing("slow", delay_s=SLOW_S))
        yield Row(part, "reset in the middle of each answer", *failing("reset", after=40))
        yield Row(part, "each answer cut off", *failing("cut", after=250 if part != "redis" else 3))
        if part == "redis":
            yield Row(part, "says garbage", *failing("answer", answer=b"\x00\xff\xfegarbage\r\n\r\n" * 3))
            yield Row(part, "says other things (+OK)", *failing("answer", answer=b"+OK\r\n"))
        else:
            yield Row(part, "200 with a page of HTML", *failing("answer", answer=HTML))
            yield Row(part, "200 with broken JSON", *failing("answer", answer=BROKEN))
            yield Row(part, "200 with other JSON", *failing("answer", answer=OTHER))
            yield Row(part, "503 of a gateway", *failing("answer", answer=http_answer(b"", "text/plain", "503 Away")))
        process = parts.processes.get(part)
        if process is not None:
            yield Row(part, "SIGSTOP", process.freeze, process.thaw)
            yield Row(part, "SIGKILL, started again after 2 s", process.kill, process.again, lasts_s=2.0)


def write_corpus(path: Path) -> list[str]:
    """Passages of SQuAD, and questions that they answer."""
    rows = harness.corpus("squad2dev")[:PASSAGES]
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps({"document_id": row["_id"], "title": row["title"], "text": row["text"]}) + "\n")
    texts, judged = harness.queries("squad2dev")
    kept = {row["_id"] for row in rows}
    return [texts[query] for query, grades in judged.items() if kept & grades.keys()]


async def answered_by_the_model(url: str, questions: Sequence[str]) -> list[str]:
    """The first questions that are answered by the language model (not abstained from) and whole."""
    found: list[str] = []
    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        for question in questions:
            answer = (await client.post("/v1/answer", json={"query": question, "cache": False})).json()
            if answer.get("model") == LLM and not answer["degraded"]:
                found.append(question)
            if len(found) == KNOWN:
                return found
    raise SystemExit("too few questions are answered by the endpoint")


class Report:
    """The rows so far."""

    def __init__(self, budget_ms: int) -> None:
        self.budget_ms = budget_ms
        self.rows: dict[str, Any] = {}
        self._began = time.monotonic()

    def note(self, name: str, found: dict[str, Any]) -> None:
        self.rows[name] = found
        print(f"{time.monotonic() - self._began:.0f} s: {name} {json.dumps(found)}", flush=True)


async def one_of_each(url: str, parts: Parts, questions: Sequence[str], report: Report, wanted: str) -> None:
    trickle = Trickle(url, await answered_by_the_model(url, questions), report.budget_ms)
    await trickle.learn()
    async with trickle.running():
        await trickle.until_whole(time.monotonic())
    for row in rows_of(parts):
        name = f"{row.part}: {row.name}"
        if re.search(wanted, name):
            report.note(name, await observe(trickle, row))
    await trickle.close()


async def workers(url: str, pid: int, parts: Parts, questions: Sequence[str], report: Report) -> None:
    """The service's own processes: two workers, one of them killed or frozen; and a stop with a stream under way."""
    trickle = Trickle(url, await answered_by_the_model(url, questions), report.budget_ms)
    await trickle.learn()
    arbiter = next(p for p in psutil.Process(pid).children(recursive=True) if _serves(p) and p.children())

    def newest() -> psutil.Process:
        return max(arbiter.children(), key=lambda process: process.create_time())

    report.note("service: SIGKILL of one of two workers", await observe(trickle, Row("", "", newest().kill, _nothing)))
    frozen = newest()
    row = Row("", "", frozen.suspend, lambda: frozen.wait(60), lasts_s=1.0)
    report.note("service: SIGSTOP of one of two workers (gunicorn ends it)", await observe(trickle, row))
    await trickle.close()
    report.note("service: SIGTERM with four streams under way", await stopping(url, arbiter, parts, questions))


async def stopping(url: str, arbiter: psutil.Process, parts: Parts, questions: Sequence[str]) -> dict[str, Any]:
    parts.chat.pieces, parts.chat.pause_s = 12, 0.4

    async def stream(question: str, begun: asyncio.Event) -> list[str]:
        names = []
        body = {"query": question, "stream": True, "cache": False}
        async with (
            httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client,
            client.stream("POST", "/v1/answer", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    names.append(line.removeprefix("event: "))
                    if names[-1] == "token":
                        begun.set()
        return names

    begun = [asyncio.Event() for _ in range(4)]
    tasks = [asyncio.create_task(stream(questions[n], event)) for n, event in enumerate(begun)]
    await asyncio.gather(*(event.wait() for event in begun))
    at = time.monotonic()
    arbiter.terminate()
    refused = None
    while refused is None and time.monotonic() - at < 20:
        try:
            async with httpx2.AsyncClient(trust_env=False) as client:
                await client.get(f"{url}/healthz", timeout=1)
        except httpx2.ConnectError:
            refused = round(time.monotonic() - at, 2)
        except httpx2.HTTPError:
            pass
        await asyncio.sleep(0.05)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    streams_s = round(time.monotonic() - at, 2)
    await asyncio.to_thread(psutil.wait_procs, [arbiter], 60)
    parts.chat.pieces, parts.chat.pause_s = 2, 0.0
    return {
        "streams": len(ends),
        "streams_whole": sum(isinstance(names, list) and names[-1:] == ["done"] for names in ends),
        "newcomers_refused_after_s": refused,
        "last_stream_ended_after_s": streams_s,
        "process_ended_after_s": round(time.monotonic() - at, 2),
    }


async def node_of_three(url: str, cluster: EmbeddedCluster, proxies: Sequence[FaultyProxy], report: Report) -> None:
    """One node of three, two copies of each shard beside the first."""
    texts, _ = harness.queries("squad2dev")
    trickle = Trickle(url, await answered_by_the_model(url, list(texts.values())[:200]), report.budget_ms)
    await trickle.learn()
    second = psutil.Process(cluster.pids[1])
    for row in (
        Row("", "connections refused", lambda: proxies[1].fail("refuse"), proxies[1].heal),
        Row("", "hangs: takes all, says nothing", lambda: proxies[1].fail("hang"), proxies[1].heal),
        Row("", "slow", lambda: proxies[1].fail("slow", delay_s=SLOW_S), proxies[1].heal),
        Row("", "SIGSTOP", second.suspend, second.resume),
        Row("", "SIGKILL, for good", second.kill, _nothing, lasts_s=10.0),
    ):
        report.note(f"one OpenSearch node of three: {row.name}", await observe(trickle, row))
    await trickle.close()


def _serves(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "app.cli serve" in " ".join(process.cmdline())
    return False


def _nothing() -> None:
    return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", default=["each", "workers", "three"])
    parser.add_argument("--budget-ms", type=int, default=BUDGET_MS, help="for trying out on a busy machine")
    parser.add_argument("--only", default="", help="rows whose name this regular expression finds")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    before, began = [round(x, 1) for x in os.getloadavg()], time.monotonic()
    report = Report(arguments.budget_ms)
    with harness.open_folder() as folder, contextlib.ExitStack() as stack:
        corpus = folder / "corpus.jsonl"
        questions = write_corpus(corpus)
        parts = Parts(folder, stack)
        env, filled = parts.env(), [str(corpus), "--whole"]
        if "each" in arguments.stages:
            with harness.braid_up(*filled, env=env, data=folder / "up") as up:
                asyncio.run(one_of_each(up["url"], parts, questions, report, arguments.only))
        if "workers" in arguments.stages:
            with harness.braid_up(*filled, env={**env, "BRAID_WORKERS": "2"}, data=folder / "up") as up:
                asyncio.run(workers(up["url"], up["pid"], parts, questions, report))
        if "three" in arguments.stages:
            cluster = stack.enter_context(start_cluster(parts.settings, data_dir=folder / "three", nodes=3))
            proxies = [stack.enter_context(FaultyProxy(port)) for port in cluster.ports]
            env["BRAID_OPENSEARCH_URL"] = ",".join(f"http://127.0.0.1:{proxy.port}" for proxy in proxies)
            with harness.braid_up(*filled, env={**env, "BRAID_REPLICAS": "2"}, data=folder / "up3") as up:
                asyncio.run(node_of_three(up["url"], cluster, proxies, report))
    loads = {"load_average_before": before, "load_average_after": [round(x, 1) for x in os.getloadavg()]}
    if not arguments.try_out:
        took = round(time.monotonic() - began)
        harness.write_result("faults", METHOD, {**loads, "took_s": took, "rows": report.rows})


if __name__ == "__main__":
    main()
