"""What callers see while a part is down: `python benchmarks/faults.py`. Method and choices: faults.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import httpx2
import psutil
from fault_parts import LLM, Parts
from proxy import FaultyProxy, http_answer
from trickle import BUDGET_MS, KINDS, PER_SECOND, Seen, Trickle

sys.path.insert(0, str(harness.ROOT))
from app.dev.node import EmbeddedCluster, start_cluster

FAULT_S = 4.0
KNOWN, PASSAGES = 8, 120
SLOW_S = 0.4
METHOD = (
    "benchmarks/faults.md. The parts run as real processes on loopback (OpenSearch, Valkey, `python -m reranker`, an "
    "endpoint that streams chat completions), the service reaches each through a TCP proxy that fails as told, or the "
    f"process gets a signal. Meanwhile {PER_SECOND} requests a second, timeout_ms {BUDGET_MS}: a cached search, a "
    "search made anew (cache: false, compared with what it found before), a search for something new, an answer. Each "
    f"fault lasts {FAULT_S:.0f} s, or until a killed process runs again. noticed_s: until the first answer that is not "
    "whole. breaker_s: until a breaker is open. recovered_s: from the end of the fault until the first of the answers "
    "that are all whole from there on. Times in ms unless they end in _s."
)


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
    parser.add_argument("--add", action="store_true", help="keep the other rows of the result file")
    parser.add_argument("--try-out", action="store_true", help="leave the result file as it is")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is then ended
    before, began = [round(x, 1) for x in os.getloadavg()], time.monotonic()
    report = Report(arguments.budget_ms)
    if arguments.add:
        report.rows |= json.loads((harness.RESULTS / "faults.json").read_text(encoding="utf-8"))["rows"]
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
            cluster = stack.enter_context(start_cluster(parts.settings.machine, data_dir=folder / "three", nodes=3))
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
