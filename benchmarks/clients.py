"""What streamed answers cost beside their model: `python benchmarks/clients.py`. Method: clients.md."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from subprocess import PIPE, Popen
from typing import Any

import harness
import httpx2
import psutil
from search_overhead import corpus_of

CLIENTS = 4
DELAY_S = 0.2
"""Seconds from a request to the scripted model to its first token."""
SILENT = "silent-model-please"
"""A question with this word is never answered by it."""
GOALS = {"first_token_ms": 60.0, "idle_mib": 100.0, "search_ratio": 1.1}
EVENTS = [
    {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    for text, finish in (("The guide says so [1]", None), (".", None), ("", "stop"))
]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Behave as the scripted model on one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            asked = await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            await asyncio.sleep(DELAY_S)
            if SILENT.encode() in asked:
                await reader.read()  # until the caller leaves
                break
            for part in [*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS), b"data: [DONE]\n\n"]:
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve_model() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def scripted_model() -> Iterator[str]:
    """The scripted model in a process of its own; yields its address."""
    with Popen([sys.executable, __file__, "--model"], stdout=PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def worker_of(pid: int) -> psutil.Process:
    """The worker of the service that a `braid up` started: the process whose parent is the server's master."""
    found = psutil.Process(pid).children(recursive=True)
    servers = [process for process in found if "serve" in process.cmdline() and "app.cli" in process.cmdline()]
    return next(process for process in servers if process.parent() in servers)


def first_token(client: httpx2.Client, path: str, body: dict[str, Any], begins: str | None, token: str) -> float:
    """Milliseconds from the event `begins` (None: from sending) to the first line that holds `token`."""
    started, waiting = time.perf_counter(), begins is not None
    with client.stream("POST", path, json=body) as found:
        assert found.status_code == 200, found.read()
        lines = found.iter_lines()
        for line in lines:
            if waiting and begins is not None and line.startswith(begins):
                started, waiting = time.perf_counter(), False
            elif not waiting and token in line:
                took = (time.perf_counter() - started) * 1000
                for _ in lines:
                    pass
                return took
    raise SystemExit(f"no {token!r} came from {path}")


def measure_first_token(service: httpx2.Client, model: httpx2.Client, texts: Sequence[str], each: int) -> Any:
    """The service and the bare model in turn."""
    times: dict[str, list[float]] = {"service": [], "model": []}
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "passage " * 2000}]}
    for text in itertools.islice(itertools.cycle(texts), each):
        body = {"query": text, "stream": True, "cache": False}
        try:
            times["service"].append(first_token(service, "/v1/answer", body, "data: ", '"text":"The guide says so'))
        except SystemExit:  # abstained: no model was asked
            continue
        times["model"].append(first_token(model, "/v1/chat/completions", asked, None, "content"))
    more = statistics.median(times["service"]) - statistics.median(times["model"])
    return {**{f"{name}_ms": harness.percentiles(t) for name, t in times.items()}, "more_ms": round(more, 1)}


@contextmanager
def idle_streams(url: str, count: int, texts: Sequence[str]) -> Iterator[None]:
    """Hold `count` streams whose model is silent, in this process; each has got its passages."""
    with ExitStack() as stack:
        client = stack.enter_context(
            httpx2.Client(base_url=url, timeout=600, trust_env=False, limits=httpx2.Limits(max_connections=None))
        )

        kept: list[Iterator[str]] = []

        def open_one(text: str) -> None:
            body = {"query": f"{text} {SILENT}", "stream": True, "cache": False}
            found = stack.enter_context(client.stream("POST", "/v1/answer", json=body))
            assert found.status_code == 200, found.read()
            lines = found.iter_lines()
            assert next(lines) == "event: retrieval"
            kept.append(lines)  # its end would end the stream

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(open_one, itertools.islice(itertools.cycle(texts), count)))
        yield


def held(service: httpx2.Client) -> int:
    """Answers that the model writes now."""
    lines = service.get("/metrics").text.splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith('write_bounds_held{of="llm"}')))


def searches(service: httpx2.Client, texts: Sequence[str]) -> list[float]:
    """Milliseconds of a search for each text, one after the other, not cached."""
    found = []
    for text in texts:
        started = time.perf_counter()
        answer = service.post("/v1/search", json={"query": text, "cache": False, "rerank": False})
        assert answer.status_code == 200, answer.text
        found.append((time.perf_counter() - started) * 1000)
    return found


def ask(service: httpx2.Client, text: str) -> None:
    """Have an answer written."""
    assert service.post("/v1/answer", json={"query": text, "cache": False}).status_code == 200


def memory_mib(process: psutil.Process) -> dict[str, float]:
    found = process.memory_full_info()
    return {"resident": round(found.rss / 2**20, 1), "unique": round(found.uss / 2**20, 1)}


def measure_idle(
    url: str, worker: psutil.Process, service: httpx2.Client, texts: Sequence[str], count: int, rounds: int
) -> dict[str, Any]:
    """Blocks of the same searches without and with idle streams in turn, and the worker's memory."""
    latencies: dict[str, list[float]] = {"without": [], "with": []}
    ratios, memory = [], {"without": memory_mib(worker)}
    for number in range(rounds):
        block = [texts[(number * 25 + n) % len(texts)] for n in range(50)]
        without = searches(service, block)
        with idle_streams(url, count, texts):
            until = time.monotonic() + 60
            while (now := held(service)) < count * 0.9 and time.monotonic() < until:
                time.sleep(0.2)
            with_them = searches(service, block)
            if not number:
                memory |= {"with": memory_mib(worker)}
                threads, at_the_model = worker.num_threads(), now
        while held(service):
            time.sleep(0.2)
        latencies["without"] += without
        latencies["with"] += with_them
        ratios.append(statistics.median(with_them) / statistics.median(without))
    return {
        "streams": count,
        "at_the_model": at_the_model,
        "threads": threads,
        "memory_mib": memory,
        "more_resident_mib": round(memory["with"]["resident"] - memory["without"]["resident"], 1),
        "search_ms": {name: harness.percentiles(values) for name, values in latencies.items()},
        "search_ratio": {"median": round(statistics.median(ratios), 3), "blocks": [round(r, 3) for r in ratios]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--try-out", action="store_true", help="leave the result file alone")
    arguments = parser.parse_args()
    if arguments.model:
        asyncio.run(serve_model())
        return
    texts = [row["title"] for row in itertools.islice(harness.corpus("awsdocs"), arguments.passages) if row["title"]]
    load_before = os.getloadavg()
    with harness.open_folder() as folder, scripted_model() as model_url:
        path = corpus_of(arguments.passages, folder)
        env = {"BRAID_LLM_URL": model_url, "BRAID_LLM_TIMEOUT_S": "600", "BRAID_LLM_MODEL": "scripted"}
        with (
            harness.braid_up(str(path), "--whole", env=env) as up,
            httpx2.Client(base_url=up["url"], timeout=120, trust_env=False) as service,
            httpx2.Client(base_url=model_url, timeout=120, trust_env=False) as model,
        ):
            searches(service, texts[:50])
            with ThreadPoolExecutor(CLIENTS) as pool:  # as warm as what opens the idle streams makes it
                list(pool.map(lambda text: ask(service, text), texts[: arguments.answers]))
            figures = {
                "first_token": measure_first_token(service, model, texts, arguments.answers),
                "idle": measure_idle(
                    up["url"], worker_of(up["pid"]), service, texts, arguments.streams, arguments.rounds
                ),
            }
    figures = {
        "passages": arguments.passages,
        "load_average": {"before": load_before, "after": os.getloadavg()},
        **figures,
        "verdict": {
            "first_token_ms": figures["first_token"]["more_ms"] <= GOALS["first_token_ms"],
            "idle_mib": figures["idle"]["more_resident_mib"] <= GOALS["idle_mib"],
            "search_ratio": figures["idle"]["search_ratio"]["median"] <= GOALS["search_ratio"],
        },
    }
    if arguments.try_out:
        print(json.dumps(figures, indent=2))
    else:
        harness.write_result("clients", "benchmarks/clients.md", figures)


if __name__ == "__main__":
    main()
